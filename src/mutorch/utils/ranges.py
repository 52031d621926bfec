"""Ranges of integers: lists written as `[min, max, step]`, and a mapping keyed by ranges."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TypeVar

from mutorch.errors import MutorchError

V = TypeVar("V")


class RangeError(MutorchError, ValueError, AssertionError):
    """A range that is written wrongly, or that overlaps another one."""


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def parse_values(candidate_lists: Iterable[Sequence[int]]) -> list[list[int]]:
    """The candidates that each `[min, max, step]` stands for, both ends included.

    Example:
        >>> parse_values([[1, 3, 1], [16, 24, 8], [3, 7, 2]])
        [[1, 2, 3], [16, 24], [3, 5, 7]]
    """
    return [_expand(item) for item in candidate_lists]


def _expand(item: Sequence[int]) -> list[int]:
    if len(item) != 3 or not all(_is_int(number) for number in item):
        raise RangeError(f"candidates are written [min, max, step], three ints; got {item!r}")
    low, high, step = item
    if low > high or step < 1:
        raise RangeError(f"[min, max, step] needs min <= max and step >= 1, got {item!r}")
    return list(range(low, high + 1, step))


class IndexDict(OrderedDict[tuple[int, int], V]):
    """A mapping from half-open ranges `(start, end)` to values, sorted, without overlaps.

    `key in d` is true where `key` equals *or overlaps* a range of `d`. A range is set once:
    setting one that equals, encloses, lies in or crosses another raises `RangeError`; delete the
    old one first.

    Example:
        >>> layers = IndexDict()
        >>> layers[4, 5] = "head"
        >>> layers[1, 3] = "stem"
        >>> list(layers)
        [(1, 3), (4, 5)]
        >>> (2, 4) in layers, (3, 4) in layers
        (True, False)
    """

    def __setitem__(self, key: tuple[int, int], value: V) -> None:
        other = self._overlapped_by(key)
        if other is not None:
            raise RangeError(f"range {key} overlaps {other}, which is set already")
        later = [stored for stored in self if stored > key]
        super().__setitem__(key, value)
        for stored in later:
            self.move_to_end(stored)

    def __contains__(self, key: object) -> bool:
        return self._overlapped_by(key) is not None

    def _overlapped_by(self, key: object) -> tuple[int, int] | None:
        if not (isinstance(key, tuple) and len(key) == 2 and all(_is_int(part) for part in key)):
            raise RangeError(f"a key is a range (start, end) of two ints, got {key!r}")
        start, end = key
        if start >= end:
            raise RangeError(f"a range needs start < end, got {key}")
        return next((other for other in self if start < other[1] and other[0] < end), None)
