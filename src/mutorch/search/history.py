"""What a search found."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mutorch.cost import METRICS, Costs
from mutorch.errors import StateError, nearest
from mutorch.space import Architecture


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluated architecture.

    Attributes:
        index: its number in the search, from 0.
        score: what is maximised; `-inf` where the evaluation gave no number.
        metrics: all that the evaluation returned.
        costs: what the table says; `None` in a search without one.
        seconds: how long the evaluation took.
    """

    index: int
    architecture: Architecture
    score: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    costs: Costs | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class History:
    """The trials of a search, in order.

    Attributes:
        interrupted: whether Ctrl-C ended it; what was found until then is all here.
        exhausted: whether it ended early because no other architecture meets the budget.

    Example:
        >>> history = History([Trial(0, {"op": "a"}, 0.5), Trial(1, {"op": "b"}, 0.7)])
        >>> history.best.architecture, [trial.index for trial in history.top(2)]
        ({'op': 'b'}, [1, 0])
    """

    trials: Sequence[Trial]
    interrupted: bool = False
    exhausted: bool = False

    @property
    def best(self) -> Trial:
        """The trial with the highest score; the earliest of equal ones.

        Errors:
            StateError: no trial.
        """
        if not self.trials:
            raise StateError("the search has no trials yet")
        return self.top(1)[0]

    def top(self, count: int) -> list[Trial]:
        """The best trials, best first."""
        return sorted(self.trials, key=lambda trial: (-trial.score, trial.index))[:count]

    def pareto(self, metric: str = "macs") -> list[Trial]:
        """The trials that no other beats in both score and cost, cheapest first.

        Errors:
            StateError: an unknown metric, or a search without costs.
        """
        if metric not in METRICS:
            raise StateError(f"no metric {metric!r}; {nearest(metric, METRICS)}")
        front: list[Trial] = []
        for trial in sorted(self.trials, key=lambda t: (_cost(t, metric), -t.score, t.index)):
            if not front or trial.score > front[-1].score:
                front.append(trial)
        return front

    def rows(self) -> list[dict[str, Any]]:
        """Each trial as a flat dict (index, score, costs, metrics, one key per decision), for tables and CSV files."""
        return [
            {
                "index": trial.index,
                "score": trial.score,
                **({} if trial.costs is None else {metric: trial.costs[metric] for metric in METRICS}),
                **trial.metrics,
                **trial.architecture,
            }
            for trial in self.trials
        ]

    def __len__(self) -> int:
        return len(self.trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)


def _cost(trial: Trial, metric: str) -> float:
    if trial.costs is None:
        raise StateError("the search counted no costs; give it example_inputs or a table")
    return trial.costs[metric]


def as_score(value: float) -> float:
    """The score that ranks: not-a-number is worst."""
    return -math.inf if math.isnan(value) else value
