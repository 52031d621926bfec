"""A number that depends on decisions: what live sizes are, and what is computed from them."""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mutorch.errors import CostError

Table = NDArray[np.int64]
Decisions = tuple[int, ...]
"""Numbers of decisions, ascending."""

MAX_ENTRIES = 4_000_000
"""The largest table that is made: 32 MB."""


class Amount:
    """An exact integer that depends on decisions: a sum of tables, each over the few decisions that it depends on.

    Amounts are added and multiplied like integers, also with integers. What is not linear (`//`, `%`, `<`) makes one table
    of all decisions concerned.

    Attributes:
        terms: the numbers of decisions to an int64 table with one axis for each; `()` is the constant part.

    Example:
        >>> width = Amount({(0,): np.array([8, 16])})
        >>> (2 * width * width + 1).terms
        {(0,): array([128, 512]), (): array(1)}
    """

    __slots__ = ("terms",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, terms: Mapping[Decisions, Any]) -> None:
        self.terms: dict[Decisions, Table] = {
            key: np.asarray(table, dtype=np.int64) for key, table in terms.items() if np.any(table)
        }

    @classmethod
    def of(cls, value: "int | np.integer[Any] | Amount") -> "Amount":
        """`value` as an amount."""
        return value if isinstance(value, Amount) else cls({(): value})

    @classmethod
    def _made(cls, terms: dict[Decisions, Table]) -> Self:
        """An amount of tables that are what they must be; looking for zeros is most of the price of adding."""
        amount = cls.__new__(cls)
        amount.terms = terms
        return amount

    @property
    def decisions(self) -> Decisions:
        """What it depends on."""
        return tuple(sorted({number for key in self.terms for number in key}))

    def at(self, codes: Mapping[int, int]) -> "Amount":
        """The amount with some decisions decided."""
        found = Amount({})
        for key, table in self.terms.items():
            rest = tuple(number for number in key if number not in codes)
            found += Amount({rest: table[tuple(codes.get(number, slice(None)) for number in key)]})
        return found

    def dense(self, decisions: Decisions, shape: tuple[int, ...]) -> Table:
        """One table over `decisions`, which has all that it depends on, of that shape."""
        check_entries(shape)
        total = np.zeros(shape, dtype=np.int64)
        for key, table in self.terms.items():
            total += along(table, key, decisions)
        return total

    # ---- linear ------------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Self:
        if not isinstance(other, int | np.integer | Amount):
            return NotImplemented
        if not isinstance(other, Amount) and not other:
            return self
        terms = dict(self.terms)
        for key, table in Amount.of(other).terms.items():
            terms[key] = np.asarray(terms[key] + table) if key in terms else table
        return self._made(terms)

    __radd__ = __add__

    def __mul__(self, other: Any) -> Self:
        if not isinstance(other, int | np.integer | Amount):
            return NotImplemented
        if not isinstance(other, Amount):
            return self._made({key: np.asarray(table * other) for key, table in self.terms.items()})
        terms: dict[Decisions, Table] = {}
        for one, left in self.terms.items():
            for two, right in other.terms.items():
                key = tuple(sorted({*one, *two}))
                a, b = along(left, one, key), along(right, two, key)
                check_entries(np.broadcast_shapes(a.shape, b.shape))
                terms[key] = np.asarray(terms[key] + a * b if key in terms else a * b)
        return self._made(terms)

    __rmul__ = __mul__

    def __neg__(self) -> Self:
        return self * -1

    def __sub__(self, other: Any) -> Self:
        return self.__add__(-other)

    def __rsub__(self, other: Any) -> Self:
        return (-self).__add__(other)

    # ---- not linear --------------------------------------------------------------------------------------------------

    def __floordiv__(self, other: Any) -> "Amount":
        return _together(operator.floordiv, self, other)

    def __rfloordiv__(self, other: Any) -> "Amount":
        return _together(operator.floordiv, other, self)

    def __mod__(self, other: Any) -> "Amount":
        return _together(operator.mod, self, other)

    def __rmod__(self, other: Any) -> "Amount":
        return _together(operator.mod, other, self)

    def __eq__(self, other: object) -> bool:
        """Whether both are equal whatever is decided."""
        if self is other:
            return True
        return not (self - other).nonzero() if isinstance(other, int | np.integer | Amount) else NotImplemented

    def nonzero(self) -> bool:
        """Whether it is anything but 0 somewhere."""
        if len(self.terms) < 2:
            return any(table.any() for table in self.terms.values())
        # Tables may cancel out against those of fewer decisions; anchored ones cannot.
        left: dict[Decisions, Table] = {}
        for key, table in self.terms.items():
            for part, values in _anchored(key, table):
                left[part] = left[part] + values if part in left else values
        return any(values.any() for values in left.values())

    def __lt__(self, other: Any) -> bool:
        return _everywhere(operator.lt, self, other)

    def __le__(self, other: Any) -> bool:
        return _everywhere(operator.le, self, other)

    def __gt__(self, other: Any) -> bool:
        return _everywhere(operator.gt, self, other)

    def __ge__(self, other: Any) -> bool:
        return _everywhere(operator.ge, self, other)

    def __repr__(self) -> str:
        return f"Amount({self.terms})"


def along(table: Table, key: Decisions, decisions: Decisions) -> Table:
    """A table over `key` with its axes placed as `decisions` has them, which has all of `key`."""
    sizes = dict(zip(key, table.shape, strict=True))
    return table.reshape([sizes.get(number, 1) for number in decisions])


def check_entries(shape: tuple[int, ...]) -> None:
    """Nothing, if a table of that shape is small enough.

    Errors:
        CostError: it is not.
    """
    if math.prod(shape) > MAX_ENTRIES:
        raise CostError(
            f"a table of {math.prod(shape)} entries would be needed: {len(shape)} decisions act on each other"
        )


def _anchored(key: Decisions, table: Table) -> list[tuple[Decisions, Table]]:
    """The table as a sum of tables that are 0 where a decision takes its first choice, over fewer and fewer decisions."""
    parts = [(key, table)]
    for number in key:
        split: list[tuple[Decisions, Table]] = []
        for own, values in parts:
            axis = own.index(number)
            first = values.take([0], axis=axis)
            split.append((own, values - first))
            split.append((own[:axis] + own[axis + 1 :], first.squeeze(axis)))
        parts = split
    return parts


def _together(compute: Callable[[Any, Any], Any], one: Any, other: Any) -> Amount:
    a, b = Amount.of(one), Amount.of(other)
    sizes: dict[int, int] = {}
    for key, table in (*a.terms.items(), *b.terms.items()):
        sizes.update(zip(key, table.shape, strict=True))
    decisions = tuple(sorted(sizes))
    shape = tuple(sizes[number] for number in decisions)
    return Amount({decisions: compute(a.dense(decisions, shape), b.dense(decisions, shape))})


def _everywhere(compare: Callable[[Any, Any], Any], one: Any, other: Any) -> bool:
    """The answer that holds whatever is decided."""
    difference = one - other
    true = _together(lambda a, b: compare(a, b), difference, 0)
    if not true.terms:
        return False
    (table,) = true.terms.values()
    if not table.all():
        raise CostError("a formula compares two sizes, and the answer depends on the widths")
    return True
