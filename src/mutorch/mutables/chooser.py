"""What `LayerChoice` and `InputChoice` have in common: who decides, and what becomes of what is taken."""

from abc import abstractmethod
from typing import Any

from torch import Tensor

from mutorch.errors import ChoiceError, FixedError

from .clock import tick
from .diff_module import DiffMutableModule
from .dump import DumpChosen
from .masks import check_reduction
from .mutable import Mutable
from .relaxation import Relaxation


class Chooser(Mutable, DiffMutableModule[Any, Any]):
    """A place that `mutorch.Mutator` decides by a choice, by gradient, or a mutator with callbacks by a mask.

    Who decided last counts: setting a choice, binding an architecture parameter, and `leave_to_mutator` undo what was.

    Args:
        reduction, return_mask: see `LayerChoice`.
        key, label: see `Mutable`.
        relaxation: see `DiffMutableModule`.
    """

    def __init__(
        self, reduction: str, return_mask: bool, key: str | None, label: str | None, relaxation: Relaxation | None
    ) -> None:
        super().__init__(key, label=label, relaxation=relaxation)
        check_reduction(reduction, self._describe())
        self.reduction = reduction
        self.return_mask = return_mask
        self._kept: Any = None

    @property
    def current_choice(self) -> Any:
        """The choice in force, also where a mutator with callbacks made it; `None` where it is none of the choices."""
        if self._current_choice is None and self.arch_param is None and self.mutator is not None:
            return self.mutator.choice_of(self)
        return self._current_choice

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        if self._is_fixed and not self.allows(choice):
            raise FixedError(f"{self._describe()} is fixed to {self._kept!r}, got {choice!r}")
        self.__dict__["_current_choice"] = None if choice is None else self._own(choice)
        tick()

    @property
    def assigned_choice(self) -> Any:
        """The choice that was set; `None` while weights or masks decide."""
        return self._current_choice

    @property
    def is_masked(self) -> bool:
        """Whether a mutator with callbacks has decided it, and nobody since."""
        open_ = self._current_choice is None and self.arch_param is None
        return open_ and self.mutator is not None and bool(self.mutator.decides(self))

    def leave_to_mutator(self, choice: Any = None) -> None:
        """Forget the choice: the mutator with callbacks decides again.

        Args:
            choice: what it has decided, if that is one of the choices: then it is not asked in every forward. Copies of
                the model leave it behind, like the mutator.
        """
        if not self._is_fixed:
            self.assign(None)
            self.set_forward_args(None)
            self.__dict__["_settled"] = choice

    def set_forward_args(self, arch_param: Tensor | None) -> None:
        super().set_forward_args(arch_param)
        self.__dict__["_settled"] = None

    def dump_chosen(self) -> DumpChosen:
        """The current choice, with the labels of all candidates as meta.

        Errors:
            ChoiceError: no choice was made.
        """
        choice = self.current_choice
        if choice is None:
            raise ChoiceError(f"{self._describe()} has no current choice to dump; choices: {self.choices}")
        return DumpChosen(list(choice) if isinstance(choice, tuple) else choice, {"all_choices": self.choices})

    @property
    @abstractmethod
    def candidate_names(self) -> list[str]:
        """The names of the candidates, by which files may say what is taken."""

    @abstractmethod
    def _own(self, choice: Any) -> Any:
        """A choice as it is spelled here.

        Errors:
            ChoiceError: none of the choices.
        """

    @abstractmethod
    def _mixed(self, arch_param: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Tensor]:
        """The mixture by an architecture parameter, and the weights."""
