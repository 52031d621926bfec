"""A value that may be one of several: a depth, a kernel size, a ratio."""

from collections.abc import Sequence
from typing import Any

from mutorch.errors import ChoiceError, FixedError, nearest
from mutorch.space import RandomSource, as_random
from mutorch.space.decision import key

from .base import BaseMutable
from .clock import tick
from .derived import DerivedMethodMixin
from .dump import DumpChosen


class MutableValue(DerivedMethodMixin, BaseMutable[Any, Any]):
    """One of a list of values, all of one type (seed 001). Read it as `value.current_choice`.

    `v * 2`, `v * 1.5`, `v // 2` and `v // (ratio, divisor)` give derived values that follow it.

    Args:
        value_list: the choices; numbers, strings or lists (an input shape).
        default_value: the current choice at first; the first of the list unless given.
        alias, init_cfg: see `BaseMutable`.

    Errors:
        TypeError: values of different types.
        ChoiceError: an empty list, a value given twice, or a default that is not in the list.

    Example:
        >>> depth = MutableValue([2, 4, 6])
        >>> depth.current_choice = 4
        >>> depth, (depth * 2).current_choice
        (MutableValue(value_list=[2, 4, 6], current_choice=4), 8)
    """

    def __init__(
        self,
        value_list: list[Any],
        default_value: Any = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(alias=alias, init_cfg=init_cfg)
        self._check_types(value_list)
        self._choices = value_list
        self._index = _index_of(value_list)
        self._current_choice = value_list[0] if default_value is None else self._own(default_value)
        self._default = self._current_choice

    @property
    def mutable_prefix(self) -> str:
        """`'value'`, the kind of decision."""
        return "value"

    @property
    def choices(self) -> list[Any]:
        """The values; after fixing, the one that is left."""
        return [self._current_choice] if self._is_fixed else self._choices

    @property
    def current_choice(self) -> Any:
        """The value in force. Compared by `==` when set, so 120.0 selects 120."""
        return self._current_choice

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        own = self._own(choice)
        if self._is_fixed and own != self._current_choice:
            raise FixedError(f"{self!r} is fixed, got {choice!r}")
        self._current_choice = own
        tick()

    @property
    def default_choice(self) -> Any:
        """The value at construction; after fixing, the one that is left."""
        return self._current_choice if self._is_fixed else self._default

    def assign(self, choice: Any) -> None:
        # A space spells tuples as lists; what is read here is spelled as in the list of values.
        self.__dict__["_current_choice"] = self._own(choice) if type(choice) is list else choice
        tick()

    def fix_chosen(self, chosen: Any) -> None:
        """Make `chosen` final.

        Errors:
            FixedError: fixed before.
            ChoiceError: not one of the values.
        """
        self._check_not_fixed()
        self._current_choice = self._own(chosen)
        self.is_fixed = True

    def dump_chosen(self) -> DumpChosen:
        """The current value, with all values as meta."""
        return DumpChosen(chosen=self._current_choice, meta={"all_choices": self.choices})

    def __repr__(self) -> str:
        return f"{type(self).__name__}(value_list={self._choices}, current_choice={self._current_choice})"

    @staticmethod
    def _check_types(values: Sequence[Any]) -> None:
        if not isinstance(values, list | tuple):
            raise TypeError(f"value_list must be a list, got {type(values).__name__}")
        for before, after in zip(values, values[1:], strict=False):
            if type(before) is not type(after):
                raise TypeError(f"all values must have one type, got {before!r} and {after!r} in {values!r}")

    def _own(self, value: Any) -> Any:
        try:
            return self._choices[self._index[key(value)]]
        except (KeyError, TypeError):
            raise ChoiceError(
                f"{type(self).__name__}{f' {self.alias!r}' if self.alias else ''} has no choice {value!r}; "
                f"{nearest(value, self._choices)}"
            ) from None


class OneShotMutableValue(MutableValue):
    """A value for one-shot search: the list is sorted (a copy), the default is the largest (seed 001).

    Example:
        >>> OneShotMutableValue([3, 1])
        OneShotMutableValue(value_list=[1, 3], current_choice=3)
    """

    def __init__(
        self,
        value_list: list[Any],
        default_value: Any = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        self._check_types(value_list)  # first: sorted() would say less
        _index_of(value_list)
        ordered = sorted(value_list)
        super().__init__(ordered, ordered[-1] if default_value is None else default_value, alias, init_cfg)

    @property
    def max_choice(self) -> Any:
        """The largest value."""
        return self.choices[-1]

    @property
    def min_choice(self) -> Any:
        """The smallest value."""
        return self.choices[0]

    def sample_choice(self, rng: RandomSource | None = None) -> Any:
        """A value, uniformly.

        Args:
            rng: a seed or a `random.Random`; `None` draws from a new generator, so the result cannot be repeated.
        """
        return as_random(rng).choice(self.choices)


def _index_of(values: Sequence[Any]) -> dict[Any, int]:
    if len(values) == 0:
        raise ChoiceError("value_list is empty: a mutable needs at least one value")
    index = {key(value): number for number, value in enumerate(values)}
    if len(index) != len(values):
        raise ChoiceError(f"value_list has a value twice: {values!r}")
    return index
