"""The base of single-path modules: one candidate computes at a time."""

from abc import abstractmethod
from typing import Any

from mutorch.space import RandomSource

from .base import CHOICE_TYPE, CHOSEN_TYPE
from .module import MutableModule


class OneShotMutableModule(MutableModule[CHOICE_TYPE, CHOSEN_TYPE]):
    """A module mutable of which one choice is computed at a time, as in Single Path One-Shot (arXiv 1904.00420).

    Subclasses implement `choices`, `sample_choice`, `forward_choice`, `forward_fixed`, `forward_all`, `fix_chosen` and
    `dump_chosen` (seeds 000 and 001).

    `forward(x)` computes, in this order: `forward_fixed(x)` if fixed; `forward_all(x)` while no choice was made (a
    `Mutator` makes the first one); `forward_choice(x, current_choice)`. Further arguments are passed on.
    """

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        choice = self._current_choice
        if self._is_fixed:
            return self.forward_fixed(x, *args, **kwargs)
        if choice is None:
            return self.forward_all(x, *args, **kwargs)
        return self.forward_choice(x, choice, *args, **kwargs)

    @abstractmethod
    def sample_choice(self, rng: RandomSource | None = None) -> CHOICE_TYPE:
        """One of the choices at random."""

    @abstractmethod
    def forward_choice(self, x: Any, choice: CHOICE_TYPE, *args: Any, **kwargs: Any) -> Any:
        """Compute one choice."""

    @abstractmethod
    def forward_fixed(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute what was fixed."""

    @abstractmethod
    def forward_all(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute all candidates."""
