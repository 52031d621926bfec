"""What the best trials chose, decision by decision."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mutorch.errors import ConfigError, StateError
from mutorch.search.trial import Trial
from mutorch.space import Choice, SearchSpace
from mutorch.space.decision import key
from mutorch.utils import require

from .drawing import BLUE, GREY, INK, Axes, Figure, choice_text, legend_above, new_figure, quiet, shortened
from .importance import choices_of, decision_names, importance, is_active, ranked
from .quantities import Searched, objectives_of

_BARS = 12
"""Up to that many decisions, with up to that many choices, are drawn as bars; more as one heat map."""
_ROWS = 60
_COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Preference:
    """How often the choices of one decision are taken.

    Attributes:
        name: of the decision.
        choices: its choices.
        among_all, among_best: the share of each choice, of the trials in which the decision matters; sums to 1.
        winner: the choice of the best trial; `None` where the decision does not matter in it.
        importance: see `importance`.
    """

    name: str
    choices: tuple[Choice, ...]
    among_all: tuple[float, ...]
    among_best: tuple[float, ...]
    winner: Choice
    importance: float


def preferences(history: Searched, *, share: float = 0.1, space: SearchSpace | None = None) -> list[Preference]:
    """What the best trials chose, beside what all trials chose, for each decision.

    Args:
        share: how many of the trials are the best; at least five trials are.
        space: of the search: its choices are listed in its order, also those that no trial took, and decisions inside of
            candidates that were not chosen do not count.

    Errors:
        StateError: no trial has a finite score.
        ConfigError: a share that is none.

    Example:
        >>> from mutorch.search import History, Trial
        >>> history = History([Trial(i, {"op": "conv" if i > 4 else "skip"}, i) for i in range(10)])
        >>> preferences(history)[0].among_best
        (1.0, 0.0)
    """
    if not 0 < share <= 1:
        raise ConfigError(f"the share of trials that are the best is between 0 and 1, got {share}")
    one = objectives_of(history)[0]
    trials, scores = ranked(history, one)
    if not trials:
        raise StateError("no trial has a finite score")
    order = np.argsort(-one.sign * scores, kind="stable")
    best = [trials[number] for number in order[: max(5, math.ceil(share * len(trials)))]]
    weights = importance(history, space)
    first = history.best
    return [_preference(name, trials, best, first, space, weights[name]) for name in decision_names(history, space)]


def preference_figure(history: Searched, *, share: float = 0.1, space: SearchSpace | None = None) -> Figure:
    """What each decision prefers: bars for a few decisions, a heat map for many; see `preferences`.

    A choice that is more frequent among the best than among all trials helps, or comes along with one that does. Of more than 60
    decisions, those that explain most are drawn.
    """
    found = preferences(history, share=share, space=space)
    if not found:
        raise StateError("the search has no decisions")
    if len(found) <= _BARS and max(len(one.choices) for one in found) <= _BARS:
        return _bars(found, share)
    return _heat_map(found, share)


def _preference(
    name: str, trials: Sequence[Trial], best: Sequence[Trial], first: Trial, space: SearchSpace | None, weight: float
) -> Preference:
    choices = choices_of(name, trials, space)
    shares = [_shares(name, some, choices, space) for some in (trials, best)]
    winner = first.architecture
    return Preference(
        name,
        tuple(choices),
        shares[0],
        shares[1],
        winner[name] if is_active(name, winner, space) else None,
        weight,
    )


def _shares(
    name: str, trials: Sequence[Trial], choices: Sequence[Choice], space: SearchSpace | None
) -> tuple[float, ...]:
    numbers = {key(choice): number for number, choice in enumerate(choices)}
    counts = np.zeros(len(choices))
    for trial in trials:
        if is_active(name, trial.architecture, space):
            counts[numbers[key(trial.architecture[name])]] += 1
    return tuple((counts / max(counts.sum(), 1)).tolist())


def _bars(found: Sequence[Preference], share: float) -> Figure:
    columns = min(len(found), 4 if len(found) > 6 else 3 if len(found) > 4 else 2)
    names = dict(zip([one.name for one in found], shortened([one.name for one in found], 28), strict=True))
    rows = [found[first : first + columns] for first in range(0, len(found), columns)]
    heights = [0.9 + 0.3 * max(len(one.choices) for one in row) for row in rows]
    figure = new_figure(8 if columns < 3 else 3.1 * columns, max(2.4, sum(heights) + 0.4))
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for line, row in zip(grid, rows, strict=True):
        for axes, one in zip(line, row, strict=False):
            _panel(axes, one, names[one.name])
        for axes in line[len(row) :]:
            axes.remove()
    grid[0][0].barh([], [], color=BLUE, label=f"share among the best {share:.0%}")
    grid[0][0].plot([], [], "|", color=INK, markersize=9, markeredgewidth=2, label="share among all trials")
    legend_above(figure, grid[0][0])
    return figure


def _panel(axes: Axes, one: Preference, name: str) -> None:
    places = np.arange(len(one.choices))
    axes.barh(places, one.among_best, height=0.62, color=BLUE, alpha=0.85)
    axes.plot(one.among_all, places, "|", color=INK, markersize=13, markeredgewidth=2, clip_on=False)
    axes.set_yticks(places, [choice_text(choice) for choice in one.choices])
    axes.set(xlim=(0, 1), ylim=(len(places) - 0.4, -0.6))
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    axes.set_title(f"{name}   explains {one.importance:.0%}", fontsize=9, loc="left")
    quiet(axes)
    axes.grid(visible=False, axis="y")


def _heat_map(found: Sequence[Preference], share: float) -> Figure:
    shown = found
    if len(found) > _ROWS:
        kept = sorted(range(len(found)), key=lambda number: -found[number].importance)[:_ROWS]
        shown = [found[number] for number in sorted(kept)]
    columns = min(max(len(one.choices) for one in shown), _COLUMNS)
    figure = new_figure(9.5, max(3.0, 1.4 + 0.24 * len(shown)))
    cells, weights = figure.subplots(1, 2, sharey=True, width_ratios=[6, 1])
    picture = np.full((len(shown), columns), np.nan)
    texts: list[list[Any]] = []
    for row, one in enumerate(shown):
        numbers = _kept_choices(one)
        picture[row, : len(numbers)] = [one.among_best[n] - one.among_all[n] for n in numbers]
        texts.append([one.choices[n] for n in numbers])
    bound = max(0.2, float(np.nanmax(np.abs(picture))))
    image = cells.imshow(picture, cmap="RdBu", vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest")
    _write(cells, picture, texts, shown, bound)
    names = shortened([one.name for one in shown], 34)
    cells.set_yticks(range(len(shown)), names, fontsize=8)
    cells.set_xticks([])
    cells.set_xlabel("choices; framed: the best trial's", fontsize=9)
    cells.spines[:].set_visible(False)
    weights.barh(range(len(shown)), [one.importance for one in shown], color=GREY, height=0.7)
    weights.set_xlabel("explains", fontsize=9)
    weights.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    weights.tick_params(axis="y", length=0, labelleft=False)
    quiet(weights)
    bar = figure.colorbar(image, ax=[cells, weights], location="top", aspect=60, shrink=0.6, pad=0.01)
    bar.set_label(_heat_title(len(shown), len(found), share), fontsize=9)
    bar.ax.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    bar.ax.tick_params(labelsize=8)
    return figure


def _heat_title(shown: int, total: int, share: float) -> str:
    text = f"share among the best {share:.0%} minus share among all trials"
    return text if shown == total else f"{text}; the {shown} of {total} decisions that explain most"


def _kept_choices(one: Preference) -> list[int]:
    """Of more choices than fit, those most frequent among the best."""
    if len(one.choices) <= _COLUMNS:
        return list(range(len(one.choices)))
    return sorted(sorted(range(len(one.choices)), key=lambda n: (-one.among_best[n], -one.among_all[n]))[:_COLUMNS])


def _write(cells: Axes, picture: Any, texts: list[list[Any]], shown: Sequence[Preference], bound: float) -> None:
    """Choices into their cells, as far as they fit, and frames around those of the winner."""
    columns = picture.shape[1]
    letters = max(2, int(62 / columns))
    size = 7 if columns <= 14 else 5.5
    rectangles = []
    for row, (one, choices) in enumerate(zip(shown, texts, strict=True)):
        for column, choice in enumerate(choices):
            color = "white" if abs(picture[row, column]) > 0.6 * bound else INK
            text = choice_text(choice, letters)
            cells.text(column, row, text, ha="center", va="center", fontsize=size, color=color, clip_on=True)
            if one.winner is not None and key(choice) == key(one.winner):
                rectangles.append((column - 0.5, row - 0.5))
    for corner in rectangles:
        cells.add_patch(_frame(corner))


def _frame(corner: tuple[float, float]) -> Any:
    patches = require("matplotlib.patches", extra="report")
    return patches.Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=1.2)
