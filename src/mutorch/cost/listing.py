"""All codes at which sums of small tables are within bounds, where they are few."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .elimination import Bucket, flat, plan, send
from .factors import Codes, Factors, Key

Bound = tuple[Factors, float]
"""A function, and what it may be at most."""


def listed(counts: Sequence[int], bounds: Sequence[Bound], limit: int) -> Codes | None:
    """All codes at which no function is above its bound, an array (architectures, decisions), in no particular order.

    Decisions are decided one after the other, for all that is left at once; what is left is that of which each function could
    still be within its bound, which the elimination of the other decisions says (branch and bound with mini-buckets, Kask &
    Dechter 2001). With one bound, that is exactly what will be listed in the end.

    Args:
        counts: how many choices each decision has.
        limit: how many codes may be left at any time.

    Returns:
        `None` where that are more.

    Example:
        >>> total = Factors((3, 3), {(0,): np.arange(3), (1,): np.arange(3)})
        >>> listed((3, 3), [(total, 1)], limit=10).tolist()
        [[0, 0], [1, 0], [0, 1]]
    """
    buckets = plan(counts, {key for factors, _ in bounds for key in factors.tables})
    columns = np.zeros((len(counts), 1), dtype=np.intp)
    searches = [_Search(factors, buckets, high) for factors, high in bounds]
    if not all(search.lowest <= search.high for search in searches):
        return np.zeros((0, len(counts)), dtype=np.intp)
    least = [np.full(1, search.lowest, dtype=np.int64) for search in searches]
    for place in reversed(range(len(buckets))):
        count = counts[buckets[place].decision]
        within = np.ones((columns.shape[1], count), dtype=np.bool_)
        for number, search in enumerate(searches):
            least[number] = least[number][:, None] + search.added(place, columns)
            within &= least[number] <= search.high
        if np.count_nonzero(within) > limit:
            return None
        rows, codes = np.nonzero(within)
        columns = columns[:, rows]
        columns[buckets[place].decision] = codes
        least = [values[rows, codes] for values in least]
    return np.ascontiguousarray(columns.T)


class _Search:
    """How small one function can still become.

    Attributes:
        lowest: a lower bound on it, the minimum itself unless decisions had to be split.
    """

    def __init__(self, factors: Factors, buckets: Sequence[Bucket], high: float) -> None:
        self.high = high
        self._counts = factors.counts
        self._regrets: list[list[tuple[Key, NDArray[Any]]]] = []
        left = dict(factors.tables)
        for bucket in buckets:
            regrets = []
            for part in bucket.parts:
                total = part.taken(left, factors.counts)
                smallest = total.min(axis=-1)
                send(left, part.rest, smallest)
                regrets.append((part.rest, (total - smallest[..., None]).reshape(-1, total.shape[-1])))
            self._regrets.append(regrets)
        self.lowest = int(left.get((), np.int64(0)))

    def added(self, place: int, columns: NDArray[np.intp]) -> NDArray[Any]:
        """By how much each choice of a decision is worse than the best one, an array (architectures, choices)."""
        found = [table[flat(columns, key, self._counts)] for key, table in self._regrets[place]]
        return np.asarray(sum(found[1:], start=found[0]))
