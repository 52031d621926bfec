"""A part of a model whose choices belong together."""

from collections.abc import Sequence
from typing import Any

from mutorch.errors import ChoiceError

from .dump import DumpChosen
from .mutable import Mutable


class MutableScope(Mutable):
    """A part of a model with choices inside: a cell, a stage. Subclass it and write an ordinary `forward` (seed 004).

    It decides nothing. Mutators with callbacks see when it is entered and left, also when `forward` fails, and an
    `InputChoice` can name its output by its key. Scopes nest. Exported, it stays what the user wrote, an ordinary module.

    Args:
        key: what the scope is called.

    Errors:
        UndecidedError: called before a mutator has found it (also `ValueError`).

    Example:
        >>> import torch, mutorch
        >>> from torch import nn
        >>> from mutorch.mutables import LayerChoice
        >>> class Cell(MutableScope):
        ...     def __init__(self, key):
        ...         super().__init__(key)
        ...         self.op = LayerChoice({"relu": nn.ReLU(), "tanh": nn.Tanh()})
        ...     def forward(self, x):
        ...         return self.op(x)
        >>> net = nn.Sequential(Cell("cell1"), Cell("cell2"))
        >>> mutorch.Mutator(net).space.names
        ('0.op', '1.op')
    """

    def __init__(self, key: str, **kwargs: Any) -> None:
        super().__init__(key, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mutator = self.mutator
        if mutator is None:
            if not self.is_found:
                raise self._undecided()
            return super().__call__(*args, **kwargs)
        mutator.enter_mutable_scope(self)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            mutator.exit_mutable_scope(self)

    @property
    def is_decision(self) -> bool:
        """No: what is inside is decided."""
        return False

    @property
    def choices(self) -> Sequence[Any]:
        """None of its own."""
        return ()

    @property
    def current_choice(self) -> Any:
        """Nothing: a scope is not decided.

        Errors:
            ChoiceError: when set.
        """
        return None

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        raise ChoiceError(f"{self._describe()} is a scope and has no choices; got {choice!r}")

    def fix_chosen(self, chosen: Any) -> None:
        """Refused: fix what is inside."""
        raise ChoiceError(f"{self._describe()} is a scope and has nothing to fix; got {chosen!r}")

    def dump_chosen(self) -> DumpChosen:
        """Refused: there is no choice."""
        raise ChoiceError(f"{self._describe()} is a scope and has no choice to dump")
