"""A value that is searched for, with exact arithmetic."""

from collections.abc import Sequence
from typing import Any

from mutorch.errors import ChoiceError
from mutorch.space import Operators
from mutorch.space.decision import plain

from .expression import ValueExpression, combined
from .value import MutableValue


class ValueChoice(Operators[ValueExpression], MutableValue):
    """One of some values: numbers, strings, or tuples. Read it as `value.current_choice` in the forward.

    Arithmetic on it is Python's own: with 3 chosen, `value // 2` has the current choice 1 (that of the older
    `MutableValue` rounds to a multiple of 8). The results are `ValueExpression`s, which follow it.

    Args:
        candidates: the values, each once. Numbers of any kind go together, and so do True and False; strings only with
            strings, tuples and lists only with these.
        label: the name of the decision; choices with one label are one decision. The path in the model unless given.
        default: the current choice at first; the first candidate unless given.
        key: the same as `label`.

    Errors:
        ChoiceError: no candidates, one given twice (True is 1), a default that is none of them, or different `label`
            and `key`.
        TypeError: candidates that do not go together; `None`, which stands for "not decided": write 0 or a string.

    Example:
        >>> kernel = ValueChoice([3, 5, 7], label="kernel")
        >>> (kernel // 2).current_choice, (kernel * 1.5 <= 6).current_choice
        (1, True)
        >>> kernel
        ValueChoice([3, 5, 7], label='kernel', current_choice=3)
    """

    def __init__(
        self,
        candidates: Sequence[Any],
        *,
        label: str | None = None,
        default: Any = None,
        key: str | None = None,
    ) -> None:
        if label is not None and key is not None and label != key:
            raise ChoiceError(f"label and key are two words for one name, got {label!r} and {key!r}; give one of them")
        super().__init__(_checked(candidates), default, alias=label if key is None else key)

    @staticmethod
    def _check_types(values: Sequence[Any]) -> None:
        kinds = {_kind(value) for value in values}
        if len(kinds) > 1:
            raise TypeError(f"candidates must be all numbers, all strings or all tuples, got {values!r}")

    def _combined(self, name: str, *operands: Any) -> ValueExpression:
        return combined(name, *operands)

    def __str__(self) -> str:
        return self.alias or repr(self)

    def __repr__(self) -> str:
        label = f"label={self.alias!r}, " if self.alias else ""
        return f"{type(self).__name__}({self._choices}, {label}current_choice={self.current_choice!r})"


def _checked(candidates: Sequence[Any]) -> list[Any]:
    if isinstance(candidates, str) or not isinstance(candidates, Sequence):
        raise TypeError(f"candidates must be a list, got {type(candidates).__name__}")
    for candidate in candidates:
        if candidate is None:
            raise TypeError(
                f"None cannot be a candidate, it says that nothing was decided; write 0 or a string instead: {candidates!r}"
            )
        plain(candidate)
    return list(candidates)


def _kind(value: Any) -> str:
    return "a string" if isinstance(value, str) else "a tuple" if isinstance(value, list | tuple) else "a number"
