"""What can be drawn of trials: their objectives, score, metrics and costs, by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mutorch.cost import METRICS
from mutorch.errors import StateError, nearest
from mutorch.search.objectives import SCORE
from mutorch.search.trial import Trial

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
LARGEST = 1e100
"""What is larger cannot be squared, and no axis can be drawn for it: it counts as infinite."""


class Searched(Protocol):
    """What figures need of a search; `History` is one."""

    @property
    def trials(self) -> Sequence[Trial]:
        """All trials, in order."""

    @property
    def best(self) -> Trial:
        """The best of them."""

    @property
    def objectives(self) -> tuple[str, ...]:
        """What was maximised, or with a minus before it minimised."""

    @property
    def run(self) -> Mapping[str, Any]:
        """What the search was."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of each trial.

    Attributes:
        name: an objective, metric or cost, without sign.
        sign: 1 where more is better, -1 where less is.
        objective: which objective of the search it is; `None` for other numbers.
    """

    name: str
    sign: int = 1
    objective: int | None = None

    @property
    def label(self) -> str:
        """What an axis is called."""
        return f"{self.name}, less is better" if self.sign < 0 else self.name

    def of(self, trials: Iterable[Trial]) -> Values:
        """The numbers in their own unit; not-a-number where a trial failed, or has none."""
        values = np.array([self._one(trial) for trial in trials], dtype=np.float64)
        return np.where(np.abs(values) > LARGEST, np.copysign(np.inf, values), values)

    def _one(self, trial: Trial) -> float:
        if trial.error is not None:
            return np.nan
        if self.objective is not None:
            return self.sign * trial.values[self.objective] if self.objective < len(trial.values) else np.nan
        if self.name in trial.metrics:
            return trial.metrics[self.name]
        return trial.costs[self.name] if trial.costs is not None and self.name in cost_names([trial]) else np.nan


def interesting(values: Values, sign: int, keep: Values) -> tuple[float, float]:
    """The bounds of finite values without what lies far from the rest at the worse end."""
    good = sign * values
    quarter, top = np.quantile(good, 0.25), good.max()
    floor = quarter - 4 * (top - quarter)
    inside = good[good >= floor]
    lowest = min([inside.min(), *(sign * keep[np.isfinite(keep)])])
    low, high = sorted((sign * lowest, sign * top))
    return float(low), float(high)


def cost_names(trials: Iterable[Trial]) -> tuple[str, ...]:
    """The costs that trials have: what is counted, then what was measured."""
    for trial in trials:
        if trial.costs is not None:
            return (*METRICS, *trial.costs.measured)
    return ()


def objectives_of(search: Searched) -> list[Quantity]:
    """The objectives, the score first; where a search has none, by the name of the metric that its score is."""
    trials = search.trials
    first = next(iter(trials[0].metrics), None) if trials and not search.objectives else None
    if first is not None and all(trial.error or trial.metrics.get(first) == trial.score for trial in trials):
        return [Quantity(first, 1, 0)]
    return [
        Quantity(name.removeprefix("-"), -1 if name.startswith("-") else 1, number)
        for number, name in enumerate(search.objectives or (SCORE,))
    ]


def quantity(search: Searched, name: str | None) -> Quantity:
    """The quantity of that name, the first objective unless given; a minus before a metric says that less is better.

    Errors:
        StateError: no trial has it.
    """
    known = {one.name: one for one in objectives_of(search)}
    if name is None:
        return next(iter(known.values()))
    plain = name.removeprefix("-")
    if plain in known:
        return known[plain]
    if plain == SCORE:
        return Quantity(SCORE, 1, 0)
    if any(plain in trial.metrics for trial in search.trials):
        return Quantity(plain, -1 if plain != name else 1)
    costs = cost_names(search.trials)
    if plain in costs:
        return Quantity(plain, -1)
    if plain in METRICS:
        raise StateError("the search counted no costs; give it example_inputs or a table")
    metrics = dict.fromkeys(metric for trial in search.trials for metric in trial.metrics)
    raise StateError(f"no trial has {plain!r}; {nearest(plain, dict.fromkeys([*known, *metrics, *costs]))}")
