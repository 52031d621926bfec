"""A drawing of one architecture: each decision with what it chose, and what it could have been."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mutorch.errors import StateError
from mutorch.search.plots.drawing import BLUE, GREY, INK, ORANGE, Axes, Figure, choice_text, new_figure, shortened
from mutorch.space import Choice, Decision, SearchSpace
from mutorch.space.decision import key
from mutorch.utils import require

_BOXES = 8
_MOST = 180


@dataclass(frozen=True, slots=True)
class Row:
    """One decision of the drawing.

    Attributes:
        name: of the decision.
        level: inside of how many candidates it sits.
        choices: what it could be; the chosen one alone where that is not known.
        chosen: the number of what it is.
    """

    name: str
    level: int
    choices: tuple[Choice, ...]
    chosen: int

    @property
    def is_amount(self) -> bool:
        """Whether the choice is drawn as a bar: an amount of something, such as channels."""
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) and one > 0 for one in self.choices)
        return numbers and len(self.choices) > 1 and (len(self.choices) > _BOXES or max(self.choices) >= 16)


def architecture_figure(architecture: Mapping[str, Choice], space: SearchSpace | None = None) -> Figure:
    """An architecture, a line for each decision in the order of the model: what was chosen in colour, the alternatives grey.

    Amounts such as widths are bars of what is kept of the largest. Decisions inside of a chosen candidate are indented below what they
    depend on; those inside of candidates that were not chosen are left out.

    Args:
        space: says what else could have been chosen.

    Errors:
        StateError: an architecture without decisions.
        SpaceError, ChoiceError: an architecture of another space.

    Example:
        >>> space = SearchSpace([Decision("op", ("conv", "skip")), Decision("width", (16, 32, 64))])
        >>> figure = architecture_figure({"op": "conv", "width": 32}, space)
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['op', 'conv', 'skip', 'width', '32 of 64']
    """
    rows = rows_of(architecture, space)
    if not rows:
        raise StateError("there is nothing to draw: the architecture has no decisions")
    shown = rows[:_MOST]
    columns = 1 if len(shown) <= 32 else 2 if len(shown) <= 80 else 3
    height = -(-len(shown) // columns)
    figure = new_figure((8.0, 12.0, 15.0)[columns - 1], 0.5 + 0.3 * height)
    names = shortened([row.name for row in shown], 30)
    left = max(12.0, *(2.2 * row.level + 1.15 * len(name) + 2 for row, name in zip(shown, names, strict=True)))
    for number, axes in enumerate(figure.subplots(1, columns, squeeze=False)[0]):
        part = slice(number * height, (number + 1) * height)
        _column(axes, shown[part], names[part], height, left if columns == 1 else 1.1 * left)
    left_out = len(architecture) - len(rows)
    notes = [f"not shown, since their candidate was not chosen: {_count(left_out)}"] if left_out else []
    notes += [f"the first {_MOST} of {len(rows)} decisions"] if len(rows) > _MOST else []
    if notes:
        figure.supxlabel("; ".join(notes), fontsize=8, color=INK)
    return figure


def rows_of(architecture: Mapping[str, Choice], space: SearchSpace | None) -> list[Row]:
    """The decisions that matter, those inside of a candidate right after the decision that chose it."""
    if space is None:
        return [Row(name, 0, (choice,), 0) for name, choice in architecture.items()]
    space.validate_choices(architecture)
    active = [one for one in space if space.is_active(one.name, architecture)]
    children: dict[str | None, list[Decision]] = {}
    for one in active:
        children.setdefault(_parent(one, architecture, space), []).append(one)
    rows: list[Row] = []

    def add(parent: str | None, level: int) -> None:
        for one in children.get(parent, ()):
            rows.append(Row(one.name, level, one.choices, one.index(architecture[one.name])))
            add(one.name, level + 1)

    add(None, 0)
    return rows


def _parent(one: Decision, architecture: Mapping[str, Choice], space: SearchSpace) -> str | None:
    """The decision whose choice brought this one in; the first where there are several."""
    return next(
        (name for name, choice in one.when if key(space[name].canonical(architecture[name])) == key(choice)), None
    )


def _column(axes: Axes, rows: Sequence[Row], names: Sequence[str], height: int, left: float) -> None:
    boxes = [row for row in rows if not row.is_amount and len(row.choices) <= _BOXES]
    count = max([len(row.choices) for row in boxes] or [1])
    width = (100 - left) / max(count, 3)
    path: list[tuple[float, float] | None] = []
    for y, (row, name) in enumerate(zip(rows, names, strict=True)):
        indent = 2.2 * row.level
        if row.level:
            axes.plot([indent - 1.4, indent - 1.4, indent - 0.4], [y - 0.45, y, y], color=GREY, linewidth=0.8)
        axes.text(indent, y, name, ha="left", va="center", fontsize=8, color=INK)
        if row.is_amount:
            _bar(axes, row, y, left)
            path.append(None)
        elif row in boxes:
            path.append((left + (row.chosen + 0.5) * width, y))
            _draw_boxes(axes, row, y, left, width)
        else:
            text = f"{choice_text(row.choices[row.chosen], 34)}   (one of {len(row.choices):,})"
            _box(axes, left, y, 100 - left, text, is_chosen=True)
            path.append(None)
    for one, other in zip(path, path[1:], strict=False):
        if one is not None and other is not None:
            axes.plot(*zip(one, other, strict=True), color=ORANGE, linewidth=1.6, alpha=0.75, zorder=1)
    axes.set(xlim=(-0.5, 100.5), ylim=(height - 0.4, -0.6))
    axes.axis("off")


def _draw_boxes(axes: Axes, row: Row, y: int, left: float, width: float) -> None:
    letters = max(3, int(width * 0.9))
    for number, choice in enumerate(row.choices):
        _box(axes, left + number * width, y, width, choice_text(choice, letters), is_chosen=number == row.chosen)


def _box(axes: Axes, x: float, y: float, width: float, text: str, *, is_chosen: bool) -> None:
    patches: Any = require("matplotlib.patches", extra="report")
    face, edge, ink = (BLUE, BLUE, "white") if is_chosen else ("#f8f9fa", "#dee2e6", "#868e96")
    box = patches.FancyBboxPatch(
        (x + 0.5, y - 0.32),
        width - 1,
        0.64,
        boxstyle="round,pad=0,rounding_size=0.4",
        facecolor=face,
        edgecolor=edge,
        zorder=2,
    )
    box.set_mutation_aspect(0.3)
    axes.add_patch(box)
    axes.text(x + width / 2, y, text, ha="center", va="center", fontsize=7.5, color=ink, zorder=3)


def _bar(axes: Axes, row: Row, y: int, left: float) -> None:
    span, largest, chosen = 100 - left - 16, max(row.choices), row.choices[row.chosen]
    axes.barh(y, span, left=left, height=0.56, color="#e9ecef", zorder=1)
    axes.barh(y, span * chosen / largest, left=left, height=0.56, color=BLUE, alpha=0.85, zorder=2)
    if len(row.choices) <= 40:
        places = [left + span * choice / largest for choice in row.choices]
        axes.vlines(places, y - 0.28, y + 0.28, color="white", linewidth=0.6, zorder=3)
    axes.text(
        left + span + 1, y, f"{choice_text(chosen)} of {choice_text(largest)}", va="center", fontsize=7.5, color=INK
    )


def _count(number: int) -> str:
    return f"{number} decision{'' if number == 1 else 's'}"
