"""What a search needs to go on: ask for an architecture, tell its score."""

from collections.abc import Callable
from typing import Protocol

from mutorch.space import Architecture

from .feasible import Feasible
from .history import Trial


class Strategy(Protocol):
    """What `search` needs of a strategy.

    What `ask` returns must depend only on how it was made and on what was told, so that a search can be resumed by
    telling it the log. Several architectures may be asked for before the first of them is told; they are told in the order of asking.
    In a search that several machines share it is told what all of them evaluate, and not of what it asked for and another has
    begun just before.
    """

    def ask(self) -> Architecture | None:
        """The next architecture to evaluate; `None` when there is none, or none before something is told."""

    def tell(self, trial: Trial) -> None:
        """What came of an architecture that was asked for: its `score`, or all `values`, and the `violation` of constraints."""


StrategyFactory = Callable[[Feasible, int], Strategy]
"""Makes a strategy of what may be drawn and a seed; a strategy class with these two arguments is one."""
