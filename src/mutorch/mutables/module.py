"""A mutable whose choices are modules."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mutorch.errors import ChoiceError, FixedError, nearest

from .base import CHOICE_TYPE, CHOSEN_TYPE, BaseMutable
from .clock import tick


class MutableModule(BaseMutable[CHOICE_TYPE, CHOSEN_TYPE]):
    """A module that computes one of its candidates (seed 000).

    A subclass that keeps its candidates in an `nn.ModuleDict` named `_candidates` is found, counted and exported
    without further code; one that keeps them elsewhere overrides `candidates`.

    Args:
        module_kwargs: arguments added to every candidate's config when it is built.
        alias, init_cfg: see `BaseMutable`.
    """

    def __init__(self, module_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.module_kwargs = module_kwargs
        self._current_choice: Any = None

    @property
    def mutable_prefix(self) -> str:
        """`'module'`, the kind of decision."""
        return "module"

    @property
    def candidates(self) -> Mapping[str, nn.Module]:
        """Choice to module; empty for a subclass that keeps them in no `nn.ModuleDict` named `_candidates`."""
        found = self._modules.get("_candidates")
        return found if isinstance(found, nn.ModuleDict) else {}  # type: ignore[return-value]

    @property
    def current_choice(self) -> Any:
        """The choice in force; `None` until one is made. A choice is checked when it is set."""
        return self._current_choice

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        if self._is_fixed and choice not in self.choices:
            raise FixedError(f"{self._describe()} is fixed to {list(self.choices)!r}, got {choice!r}")
        if choice is not None:
            self._check_choice(choice)
        self._current_choice = choice
        tick()

    def assign(self, choice: Any) -> None:
        # nn.Module.__setattr__ looks for parameters, buffers and modules first: ten times the price of this.
        self.__dict__["_current_choice"] = choice
        tick()

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """Compute."""

    @abstractmethod
    def forward_fixed(self, x: Any) -> Any:
        """Compute what was fixed."""

    @abstractmethod
    def forward_all(self, x: Any) -> Any:
        """Compute all candidates."""

    def chosen_module(self, choice: Any) -> nn.Module:
        """The module that computes what this mutable computes at `choice`; what an exported model holds in its place.

        Errors:
            ChoiceError: no candidate of that name.
        """
        self._check_choice(choice)
        try:
            return self.candidates[choice]
        except KeyError:
            raise ChoiceError(
                f"{self._describe()} keeps its candidates in no nn.ModuleDict named _candidates; "
                "override `candidates` or `chosen_module` to say which module a choice stands for"
            ) from None

    def keeps(self, choice: Any, candidate: str) -> bool:
        """Whether the model at `choice` has the candidate of that name."""
        return bool(choice == candidate)

    @property
    def runs_anywhere(self) -> bool:
        """Whether every choice can run on the input of the current one, so that one forward shows what all of them cost."""
        return bool(self.candidates)

    @property
    def covering_choices(self) -> Sequence[Any]:
        """Choices that together take everything that any choice takes."""
        return self.decision_choices

    def candidate_at(self, child: str) -> Any:
        """The candidate that a child of this module is; `None` of children that are none."""
        return None

    def active_candidates(self) -> list[nn.Module]:
        """The candidates that the next `forward(x)` computes."""
        if self._current_choice is None:
            return list(self.candidates.values())
        return [self.chosen_module(self._current_choice)]

    def _check_choice(self, choice: Any) -> None:
        if choice not in self.choices:
            raise ChoiceError(f"{self._describe()} has no choice {choice!r}; {nearest(choice, self.choices)}")

    def _describe(self) -> str:
        return f"{type(self).__name__}{f' {self.alias!r}' if self.alias else ''}"
