"""What each decision alone does to the score, before anything is cut."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from mutorch.errors import ConfigError, SpaceError, nearest
from mutorch.mutators import Mutator
from mutorch.space import Architecture, Choice, Decision, SearchSpace
from mutorch.subnet import export
from mutorch.utils import require

from .progress import Progress, showing


@dataclass(frozen=True, slots=True)
class Change:
    """One row: the score where one decision has another choice, and all others are as in the base.

    Attributes:
        score: that of the base where the decision does not matter in the base, which is then not evaluated again.
        lost: the score of the base minus this one; how much the choice alone costs. Infinite for a score that is no
            number.
    """

    decision: str
    choice: Choice
    score: float
    lost: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What `sensitivity` measured; `print` it for a table, `plot` it for a picture.

    Attributes:
        base: the architecture that decisions were changed in, one at a time.
        score: of the base.
        rows: in the order of the space, choices as the decision lists them; the base's own choices are not among them.
        evaluations: how often `evaluate` was called.
        ruled_out: decisions and choices that constraints of the space do not allow with the base, so without a score.
    """

    base: Architecture
    score: float
    rows: tuple[Change, ...]
    evaluations: int
    ruled_out: tuple[tuple[str, Choice], ...] = ()

    def of(self, decision: str) -> list[Change]:
        """The rows of one decision."""
        names = list(dict.fromkeys(row.decision for row in self.rows))
        if decision not in names:
            raise SpaceError(f"nothing was measured of {decision!r}; {nearest(decision, names)}")
        return [row for row in self.rows if row.decision == decision]

    def shares(self, tolerance: float) -> dict[str, float]:
        """The smallest share of its channels with which each unit alone loses at most `tolerance`, for `shrink`.

        Units that lose more with every width that was measured keep all channels. Decisions whose choices are no numbers
        are left out.

        Example:
            >>> rows = (Change("0", 4, 0.7, 0.2), Change("0", 6, 0.88, 0.02))
            >>> Sensitivity({"0": 8}, 0.9, rows, 3).shares(tolerance=0.05)
            {'0': 0.75}
        """
        found = {}
        for name, whole in self.base.items():
            if isinstance(whole, int | float) and not isinstance(whole, bool) and whole > 0:
                good = [
                    r.choice for r in self.rows if r.decision == name and r.lost <= tolerance and _is_less(r, whole)
                ]
                found[name] = min(good, default=whole) / whole
        return found

    def __str__(self) -> str:
        names = list(dict.fromkeys(row.decision for row in self.rows))
        width = max((len(name) for name in names), default=0)
        lines = [f"score of the base: {self.score:.4g}; what one decision alone loses:"]
        for name in sorted(names, key=lambda name: -max(row.lost for row in self.of(name))):
            each = ", ".join(f"{row.choice}: {row.lost:+.4g}" for row in self.of(name))
            lines.append(f"{name:<{width}}  {each}")
        if self.ruled_out:
            lines.append("constraints rule out: " + ", ".join(f"{name}: {choice}" for name, choice in self.ruled_out))
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """A matplotlib figure with a line for each decision whose choices are numbers, and bars for the others.

        Needs the extra `report`.

        Args:
            path: a file to write it to as well: `.svg`, `.png`, `.pdf`.
        """
        figure = require("matplotlib.figure", extra="report").Figure(figsize=(9, 5), layout="constrained")
        names = list(dict.fromkeys(row.decision for row in self.rows))
        lines = [name for name in names if _is_number(self.base[name])]
        bars = [row for row in self.rows if row.decision not in lines]
        panels = iter(figure.subplots(1, bool(lines) + bool(bars) or 1, squeeze=False)[0])
        if lines:
            axes = next(panels)
            for name in lines:
                points = [(row.choice, row.score) for row in self.of(name)] + [(self.base[name], self.score)]
                largest = max(point[0] for point in points)
                points = sorted((choice / largest, score) for choice, score in points)
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=name)
            axes.set(xlabel="share of the largest choice of one decision, all others as in the base", ylabel="score")
            axes.legend(fontsize="x-small", ncols=1 + len(lines) // 20)
        if bars:
            axes = next(panels)
            axes.barh([f"{row.decision}: {row.choice}" for row in bars], [row.lost for row in bars])
            axes.invert_yaxis()
            axes.set(xlabel="score that is lost with another choice of one decision")
        if path is not None:
            figure.savefig(path)
        return figure


def sensitivity(
    net: nn.Module | Mutator | SearchSpace,
    evaluate: Callable[[Any], float],
    *,
    only: str | Iterable[str] = "*",
    base: Mapping[str, Choice] | None = None,
    num_choices: int | None = 5,
    max_evaluations: int = 1000,
    calibrate: Iterable[Any] | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """How the score depends on each decision alone, with everything else whole. Nothing is changed.

    It shows where a model can be cut, and where it cannot, before it is. Each choice is measured as the exported model;
    rank channels first, with `rank_`. The score without any change is measured too.

    Args:
        net: a searchable model, a model with choices, its `Mutator`, or a space alone.
        evaluate: takes a plain model in evaluation mode and gives its score, higher for better; for a space, takes an
            architecture.
        only: globs over decisions; all unless given.
        base: the architecture that is changed; the default of the space, which for widths is the whole model.
        num_choices: how many choices of a decision to measure, evenly over those that it has, first and last among them;
            `None` for all.
        max_evaluations: what may be spent; more is an error before anything is evaluated.
        calibrate: batches to measure the BatchNorm statistics of each model on, as `search` does.
        progress: see `shrink`.

    Errors:
        SpaceError: globs that name no decision, or a base that is no architecture.
        ConfigError: more evaluations than `max_evaluations`.

    Example:
        >>> import torch
        >>> from mutorch.channels import searchable
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> net = searchable(model, torch.zeros(1, 4))
        >>> found = sensitivity(net, lambda small: float(sum(p.numel() for p in small.parameters())))
        >>> found.of("2")
        [Change(decision='2', choice=8, score=234.0, lost=152.0)]
    """
    mutator = net if isinstance(net, Mutator) else Mutator(net) if isinstance(net, nn.Module) else None
    if mutator is None and not isinstance(net, SearchSpace):
        raise ConfigError(f"sensitivity takes a model, a Mutator or a SearchSpace, got {type(net).__name__}")
    space = net if isinstance(net, SearchSpace) else mutator.space  # type: ignore[union-attr]
    start = space.canonical(space.default if base is None else base)
    possible = [
        (decision.name, choice)
        for decision in _named(space, only)
        for choice in _spread(decision, start[decision.name], num_choices)
    ]
    changes = [(name, choice) for name, choice in possible if not space.broken({**start, name: choice})]
    wanted = dict(_keyed(space, start, *change) for change in changes)
    first = _key(space, start)
    if len({first, *wanted}) > max_evaluations:
        raise ConfigError(
            f"{len({first, *wanted})} architectures would be evaluated, more than max_evaluations={max_evaluations}; "
            "give fewer num_choices, or only some decisions"
        )
    scores: dict[tuple[Any, ...], float] = {}
    with showing(progress) as show:
        for number, (key, architecture) in enumerate({first: start, **wanted}.items(), start=1):
            scores[key] = float(evaluate(_subject(mutator, architecture, calibrate)))
            show("sensitivity", number, len({first, *wanted}), f"{scores[key]:.4g}")
    rows = []
    for name, choice in changes:
        score = scores[_keyed(space, start, name, choice)[0]]
        rows.append(Change(name, choice, score, math.inf if math.isnan(score) else scores[first] - score))
    ruled_out = tuple(change for change in possible if change not in changes)
    return Sensitivity(start, scores[first], tuple(rows), len(scores), ruled_out)


def _subject(mutator: Mutator | None, architecture: Architecture, calibrate: Iterable[Any] | None) -> Any:
    if mutator is None:
        return architecture
    return export(mutator.model, architecture, mutator=mutator, calibrate=calibrate).eval()


def _named(space: SearchSpace, only: str | Iterable[str]) -> list[Decision]:
    patterns = [only] if isinstance(only, str) else list(only)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in space.names):
            raise SpaceError(f"only names {pattern!r}, which is no decision; {nearest(pattern, space.names)}")
    return [decision for decision in space if any(fnmatchcase(decision.name, pattern) for pattern in patterns)]


def _spread(decision: Decision, now: Choice, count: int | None) -> list[Choice]:
    """So many choices, evenly over all of them, without the one of the base."""
    others: Sequence[Choice] = [choice for choice in decision.choices if choice != now]
    if count is None or len(others) <= count:
        return list(others)
    if count < 1:
        raise ConfigError(f"num_choices must be at least 1, got {count}")
    last = len(others) - 1
    return [others[round(last * i / max(count - 1, 1))] for i in range(count)]


def _keyed(space: SearchSpace, base: Architecture, name: str, choice: Choice) -> tuple[tuple[Any, ...], Architecture]:
    architecture = space.canonical({**base, name: choice})
    return _key(space, architecture), architecture


def _key(space: SearchSpace, architecture: Mapping[str, Choice]) -> tuple[Any, ...]:
    return tuple(space.encode(architecture))


def _is_number(choice: Any) -> bool:
    return isinstance(choice, int | float) and not isinstance(choice, bool)


def _is_less(row: Change, whole: float) -> bool:
    return _is_number(row.choice) and row.choice < whole
