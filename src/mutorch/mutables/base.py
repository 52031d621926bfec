"""The base of everything that has choices."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from torch import nn

from mutorch.errors import ChoiceError, FixedError
from mutorch.space.decision import key

from .clock import tick
from .dump import DumpChosen

HELD = "held_mutables"
"""The attribute in which a module lists mutables that decide parts of it without being its children."""
CHOICE_TYPE = TypeVar("CHOICE_TYPE")
CHOSEN_TYPE = TypeVar("CHOSEN_TYPE")


class BaseMutable(nn.Module, ABC, Generic[CHOICE_TYPE, CHOSEN_TYPE]):
    """A module that has choices, one of which can be current, and that can be fixed to one for good.

    Subclasses say what the choices are, what `fix_chosen` keeps and what `dump_chosen` records; `BaseMutable[str, str]`
    names the types of choice and chosen for type checkers. The states follow the guide to mutables (seed 000)::

        mutable --current_choice = x, any number of times--> mutable
        mutable --fix_chosen(x)--> fixed

    Args:
        alias: the name of the decision; mutables with one alias make one decision. Without one, the decision is
            named by the path of the module in the model.
        init_cfg: kept as an attribute, so that configurations which name it load; nothing here reads it.
    """

    def __init__(self, alias: str | None = None, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.alias = alias
        self.init_cfg = init_cfg
        self._is_fixed = False

    @property
    def is_fixed(self) -> bool:
        """Whether the choice is final. Setting it twice is an error: there is no way back."""
        return self._is_fixed

    @is_fixed.setter
    def is_fixed(self, is_fixed: bool) -> None:
        if not isinstance(is_fixed, bool):
            raise ChoiceError(f"is_fixed must be a bool, got {is_fixed!r}")
        self._check_not_fixed()
        self._is_fixed = is_fixed
        tick()

    @property
    @abstractmethod
    def current_choice(self) -> Any:
        """The choice in force now; `None` where none was made."""

    @current_choice.setter
    def current_choice(self, choice: Any) -> None: ...

    @property
    @abstractmethod
    def choices(self) -> Sequence[Any]:
        """All choices."""

    @property
    def is_decision(self) -> bool:
        """Whether it is a decision of the search space where it stands in a model; not where nothing lists its choices."""
        return True

    @property
    def decision_choices(self) -> Sequence[Any]:
        """What one decision of the search space may be: `choices`, unless several of them are chosen together."""
        return self.choices

    def allows(self, choice: Any) -> bool:
        """Whether `fix_chosen` takes `choice`."""
        return key(choice) in map(key, self.decision_choices)

    @property
    def num_choices(self) -> int:
        """How many choices there are."""
        return len(self.choices)

    @property
    def default_choice(self) -> Any:
        """The choice of a model that nobody searched: the first, unless the mutable was given another."""
        return self.decision_choices[0]

    @abstractmethod
    def fix_chosen(self, chosen: CHOSEN_TYPE) -> None:
        """Make `chosen` final, in place; `mutorch.export` makes a new model instead and is the documented route."""

    @abstractmethod
    def dump_chosen(self) -> DumpChosen:
        """The current choice as a record that can be saved."""

    def export_chosen(self) -> Any:
        """The current choice alone."""
        dumped = self.dump_chosen()
        return dumped.chosen if isinstance(dumped, DumpChosen) else dumped

    @property
    def assigned_choice(self) -> Any:
        """What to `assign` to have it as it is now: `current_choice`, unless something else than the mutable holds that."""
        return self.current_choice

    def assign(self, choice: Any) -> None:
        """Set `current_choice` to a choice that the caller has already checked; the mutator calls it once a step."""
        self.current_choice = choice

    def _check_not_fixed(self) -> None:
        if self._is_fixed:
            raise FixedError(
                f"{type(self).__name__}{f' {self.alias!r}' if self.alias else ''} is already fixed to "
                f"{self.export_chosen()!r}; a fixed mutable cannot change, build the model again to search again"
            )
