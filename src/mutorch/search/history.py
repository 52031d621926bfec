"""What a search found."""

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mutorch.cost import METRICS
from mutorch.errors import CostError, StateError, nearest
from mutorch.subnet.remeasure import Remeasured

from .dominance import dominates, hypervolume
from .objectives import SCORE
from .plots import pareto_figure, progress_figure
from .trial import Trial as Trial


@dataclass(frozen=True, slots=True)
class History:
    """The trials of a search, in order.

    Attributes:
        interrupted: whether Ctrl-C ended it; what was found until then is all here.
        exhausted: whether it ended early because no other architecture meets the budget.
        objectives: what was maximised, or with a minus before it minimised.
        run: what the search was: space, budget, strategy, seed and so on, as in the header of its log.
        measured: the latency of the best, measured again at the end, by the index of the trial.

    Example:
        >>> history = History([Trial(0, {"op": "a"}, 0.5), Trial(1, {"op": "b"}, 0.7)])
        >>> history.best.architecture, [trial.index for trial in history.top(2)]
        ({'op': 'b'}, [1, 0])
    """

    trials: Sequence[Trial]
    interrupted: bool = False
    exhausted: bool = False
    objectives: tuple[str, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[int, Remeasured] = field(default_factory=dict)

    @property
    def best(self) -> Trial:
        """The trial with the highest score among those that keep to all constraints; the earliest of equal ones.

        What was measured again and is outside of the bound then, whatever was predicted, is not the best.

        Errors:
            StateError: no trial.
        """
        if not self.trials:
            raise StateError("the search has no trials yet")
        return min(self.trials, key=self._key)

    def top(self, count: int) -> list[Trial]:
        """The best trials, best first; those that break constraints, or a bound when measured again, come last."""
        return sorted(self.trials, key=self._key)[:count]

    def pareto(self, metric: str | None = None) -> list[Trial]:
        """The trials that no other beats in everything.

        Args:
            metric: a cost, as `"params"`: the front of score against it, cheapest first. Unless given, the front of the search's
                objectives where it has several, best in the first one first; else that of score against macs.

        Errors:
            StateError: an unknown metric, or a search without costs.
        """
        feasible = [trial for trial in self.trials if trial.is_feasible]
        if metric is None and len(self.objectives) > 1:
            return _front(feasible)
        metric = metric or "macs"
        feasible = [trial for trial in feasible if trial.costs is not None] or feasible
        front: list[Trial] = []
        for trial in sorted(feasible, key=lambda t: (_cost(t, metric), *t.key)):
            if not front or trial.score > front[-1].score:
                front.append(trial)
        return front

    def hypervolume(self, reference: Mapping[str, float] | None = None) -> float:
        """How much of the space of objectives the front covers, from the reference on; more is better.

        Args:
            reference: for each objective the worst value of interest, in its own unit: `{"accuracy": 0.1, "macs": 300e6}`. The
                worst of all trials unless given, which makes values of two searches incomparable.

        Errors:
            StateError: no trial that keeps to the constraints; an objective without a reference.
        """
        feasible = [trial for trial in self.trials if trial.is_feasible and all(map(math.isfinite, trial.values))]
        if not feasible:
            raise StateError("no trial has finite values and keeps to all constraints, so there is no front")
        points = np.array([trial.values for trial in feasible])
        if reference is None:
            return hypervolume(points, points.min(axis=0).tolist())
        return hypervolume(points, [_reference(name, reference) for name in self.objectives or (SCORE,)])

    def table(self) -> list[dict[str, Any]]:
        """Each trial as a flat dict (index, score, costs, metrics, one key per decision), for `pandas.DataFrame` and the like.

        A metric or a decision with a name that is taken stands as `metric.score`, `choice.index`.
        """
        return [_row(trial) for trial in self.trials]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """A matplotlib figure: the front of several objectives, or of score against macs; without costs, the score over trials.

        Other figures are in `mutorch.search.plots`, and all of them in the report of `mutorch.reporting`. Needs the extra `report`.

        Args:
            path: a file to write it to, as `.png`, `.svg` or `.pdf`.

        Errors:
            StateError: no trials.
            MissingExtraError: matplotlib is not installed.
        """
        has_front = len(self.objectives) > 1 or any(trial.costs is not None for trial in self.trials)
        figure = pareto_figure(self) if has_front else progress_figure(self)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `table` as a CSV file."""
        rows = self.table()
        names = list(dict.fromkeys(name for row in rows for name in row))
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    def _key(self, trial: Trial) -> tuple[Any, ...]:
        again = self.measured.get(trial.index)
        return again is not None and again.within is False, *trial.key

    def __len__(self) -> int:
        return len(self.trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)


def _row(trial: Trial) -> dict[str, Any]:
    row: dict[str, Any] = {"index": trial.index, "score": trial.score}
    if trial.costs is not None:
        row |= {metric: trial.costs[metric] for metric in METRICS} | dict(trial.costs.measured)
    row |= {_column(name, "metric", row): value for name, value in trial.metrics.items()}
    if trial.violation:
        row["violation"] = trial.violation
    if trial.error is not None:
        row["error"] = trial.error
    return row | {_column(name, "choice", row): choice for name, choice in trial.architecture.items()}


def _column(name: str, kind: str, row: Mapping[str, Any]) -> str:
    """A name that the row does not have yet."""
    return f"{kind}.{name}" if name in row else name


def _front(trials: Sequence[Trial]) -> list[Trial]:
    """Of equal ones the earliest. Sorted like this, nothing is dominated by what comes after it."""
    front: list[Trial] = []
    for trial in sorted(trials, key=lambda t: ([-value for value in t.values], t.index)):
        if not any(other.values == trial.values or dominates(other.values, trial.values) for other in front):
            front.append(trial)
    return front


def _reference(objective: str, reference: Mapping[str, float]) -> float:
    name = objective.removeprefix("-")
    if name not in reference:
        raise StateError(f"the reference has no {name!r}; {nearest(name, reference)}")
    return -float(reference[name]) if name != objective else float(reference[name])


def _cost(trial: Trial, metric: str) -> float:
    if trial.costs is None:
        raise StateError("the search counted no costs; give it example_inputs or a table")
    try:
        return trial.costs[metric]
    except (AttributeError, CostError) as error:
        known = (*METRICS, *trial.costs.measured)
        raise StateError(f"no metric {metric!r}; {nearest(metric, known)}") from error
