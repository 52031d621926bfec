"""The base of mutables that a mutator with callbacks can decide: the older one-shot API (seed 004)."""

import sys
import warnings
from typing import Any

from mutorch.errors import ChoiceError, StateError, UndecidedError

from .base import BaseMutable

KEY_OF_ROOT = "root"
"""The key of a mutable that is the whole model, and so has no path."""


class Mutable(BaseMutable[Any, Any]):
    """A place that a mutator with callbacks decides (`mutorch.mutators.BaseMutator`), or `mutorch.Mutator` by its choices.

    It holds no decision of such a mutator: its forward asks. Its `key` says which decision it belongs to: equal keys, one
    decision. It is the same thing as an `alias`. A mutable without one gets the path of the module as soon as a mutator
    has found it; there is no counter, so a model that is built again has the same keys.

    Args:
        key: a string; anything else is converted, with a warning.
        label: the same, as later versions of the seed's library call it.

    Example:
        >>> from mutorch.mutables import LayerChoice, MutableScope
        >>> from torch import nn
        >>> op = LayerChoice([nn.ReLU(), nn.Tanh()], key="op")
        >>> isinstance(op, Mutable), op.key, op.name
        (True, 'op', 'op')
        >>> LayerChoice([nn.ReLU(), nn.Tanh()]).key is None
        True
    """

    _settled: Any

    def __init__(self, key: Any = None, *, label: str | None = None, **kwargs: Any) -> None:
        if key is not None and label is not None and key != label:
            raise ChoiceError(f"key and label name one thing, expected one of them; got {key!r} and {label!r}")
        key = label if key is None else key
        if key is not None and not isinstance(key, str):
            warnings.warn(f"key {key!r} is no string and was converted to {str(key)!r}", stacklevel=_outside())
            key = str(key)
        super().__init__(alias=key, **kwargs)
        # Not attributes that nn.Module would register: the mutator is no part of the model.
        self.__dict__["_mutator"] = None
        self.__dict__["_settled"] = None
        self.__dict__["_path"] = None

    @property
    def key(self) -> str | None:
        """The name of the decision: the one that was given, else the path in the model; `None` before that is known."""
        path: str | None = self.__dict__["_path"]
        return self.alias or (None if path is None else path or KEY_OF_ROOT)

    @property
    def name(self) -> str | None:
        """The path of the module in the model that a mutator found it in; before that, the key."""
        path: str | None = self.__dict__["_path"]
        return self.alias if path is None else path

    @property
    def mutator(self) -> Any:
        """The mutator that decides it in callbacks; `None` without one."""
        return self.__dict__["_mutator"]

    def set_mutator(self, mutator: Any) -> None:
        """Let `mutator` decide from now on. Copies and pickles of the mutable leave it behind.

        Errors:
            StateError: there is one already (also `RuntimeError`).
        """
        if self.mutator is not None and mutator is not None:
            raise StateError(
                f"{self._describe()} is decided by a {type(self.mutator).__name__} already, and cannot be decided by a "
                f"{type(mutator).__name__} too; call unbind() on the first"
            )
        self.__dict__["_mutator"] = mutator
        self.__dict__["_settled"] = None

    def found_at(self, path: str) -> None:
        """Remember where in the model a mutator found it."""
        self.__dict__["_path"] = path

    @property
    def is_found(self) -> bool:
        """Whether a mutator has found it in a model."""
        return self.__dict__["_path"] is not None

    def _undecided(self) -> UndecidedError:
        return UndecidedError(
            f"{self._describe()} was called before anything decides it: expected a mutator, got none; make a "
            "mutorch.Mutator of the model, or one of mutorch.mutators such as RandomMutator"
        )

    def _describe(self) -> str:
        return f"{type(self).__name__} {self.key!r}" if self.key is not None else f"{type(self).__name__} (no key yet)"

    def __getstate__(self) -> dict[str, Any]:
        # A copy of a model is free to be decided by another mutator.
        return {**self.__dict__, "_mutator": None, "_settled": None}


def _outside() -> int:
    """How many frames above the caller the one is that is no code of this library."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("mutorch."):
        level, frame = level + 1, frame.f_back
    return level
