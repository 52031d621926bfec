"""One evaluated architecture."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mutorch.cost import Costs
from mutorch.space import Architecture

from .objectives import as_score


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluated architecture.

    Attributes:
        index: its number in the search, from 0.
        score: the first objective, to be maximised; `-inf` where the evaluation gave no number.
        metrics: all that the evaluation returned.
        costs: what the table says; `None` in a search without one.
        seconds: how long the evaluation took.
        values: all objectives, to be maximised (those to be minimised with a minus); the score alone unless given.
        violation: how far the constraints of the search are missed; 0 where all hold.
        error: what went wrong, in a search that records errors.
    """

    index: int
    architecture: Architecture
    score: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    costs: Costs | None = None
    seconds: float = 0.0
    values: tuple[float, ...] = ()
    violation: float = 0.0
    error: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", self.values or (self.score,))

    @property
    def is_feasible(self) -> bool:
        """Whether it was evaluated, and all constraints hold."""
        return self.violation == 0 and self.error is None

    @property
    def key(self) -> tuple[bool, float, float, int]:
        """What sorts trials, best first: without errors, then by violation, score, and the earlier one."""
        return self.error is not None, self.violation, -as_score(self.score), self.index
