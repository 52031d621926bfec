"""A function of many decisions as a sum of small tables, each over the few decisions that it depends on."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mutorch.errors import CostError

from .amount import MAX_ENTRIES, along

Codes = NDArray[np.integer]
Table = NDArray[np.int64]
Key = tuple[int, ...]

_MERGED = 4096
"""Entries up to which tables are merged, so that one look-up does for all of them: 32 KB, which stay in a core's cache."""
_ROWS = 8192
"""How many architectures are looked up at a time, so that their codes stay there too."""


@dataclass(frozen=True, slots=True)
class Factors:
    """`f(codes) = sum over (decisions, table) of table[codes[decisions]]`, exact in integers.

    Attributes:
        counts: how many choices each decision has.
        tables: from the indices of decisions, ascending, to an int64 table with one axis for each.
    """

    counts: tuple[int, ...]
    tables: Mapping[Key, Table]
    _plan: list[tuple[Key, Table]] = field(default_factory=list, init=False, repr=False, compare=False)

    def evaluate(self, codes: Codes) -> NDArray[np.int64]:
        """The values at `codes`, an integer array (architectures, decisions): one look-up and addition a merged table.

        Errors:
            CostError: a code that is no number of a choice.
        """
        if not self._plan:
            object.__setattr__(self, "_plan", [((), np.int64(0)), *merged(self.tables, self.counts)])
        codes = np.asarray(codes)
        total = np.zeros(len(codes), dtype=np.int64)
        limits = np.array(self.counts)[:, None]
        for start in range(0, len(codes), _ROWS):
            # Choices as rows, one after the other in memory, and as narrow as flat indices of merged tables are.
            columns = np.ascontiguousarray(codes[start : start + _ROWS].T)
            if columns.size and (columns.min() < 0 or (columns >= limits).any()):
                raise CostError(f"codes of decisions with {list(self.counts)} choices must be from 0 to below that")
            self._add(columns.astype(np.uint16), total[start : start + _ROWS])
        return total

    def _add(self, columns: NDArray[np.uint16], total: NDArray[np.int64]) -> None:
        found = np.empty_like(total)
        for decisions, table in self._plan:
            if not decisions:
                total += table
                continue
            flat = columns[decisions[0]].astype(np.uint16 if table.size <= 2**16 else np.intp)
            for axis, decision in enumerate(decisions[1:], start=1):
                flat *= table.shape[axis]
                flat += columns[decision]
            total += np.take(table.reshape(-1), flat, out=found, mode="clip")

    def minimum(self) -> list[int]:
        """The codes of the smallest value, exactly.

        A decision for which one choice is the best in every table, whatever else is decided, takes it: the narrowest width.
        The others are eliminated one after the other (min-sum).

        Errors:
            CostError: too many decisions act on each other.
        """
        tables = dict(self.tables)
        codes: list[int] = [0] * len(self.counts)
        undecided = set(range(len(self.counts)))
        changed = True
        while changed:
            changed = False
            for decision in sorted(undecided):
                best = _dominant([(key, table) for key, table in tables.items() if decision in key], decision)
                if best is not None:
                    codes[decision], changed = best, True
                    tables = _decided(tables, decision, best)
                    undecided.remove(decision)
        eliminated: list[tuple[int, Key, NDArray[np.intp]]] = []
        while undecided:
            decision = min(undecided, key=lambda one: (_entries(tables, self.counts, one), one))
            if _entries(tables, self.counts, decision) > MAX_ENTRIES:
                raise CostError(
                    f"the smallest value of a cost of {len(self.counts)} decisions cannot be found: too many of them act on "
                    "each other, and not as widths do"
                )
            undecided.remove(decision)
            touching = [key for key in tables if decision in key]
            key, table = _merge({key: tables.pop(key) for key in touching}, self.counts, extra=(decision,))
            axis = key.index(decision)
            rest = key[:axis] + key[axis + 1 :]
            eliminated.append((decision, rest, table.argmin(axis=axis)))
            smallest = table.min(axis=axis)
            tables[rest] = tables[rest] + smallest if rest in tables else smallest
        for decision, rest, choice in reversed(eliminated):
            codes[decision] = int(choice[tuple(codes[other] for other in rest)])
        return codes

    def negated(self) -> "Factors":
        """The function with the other sign; its minimum is this one's maximum."""
        return Factors(self.counts, {key: -table for key, table in self.tables.items()})


def merged(tables: Mapping[Key, Table], counts: Sequence[int]) -> list[tuple[Key, Table]]:
    """Fewer tables with the same sum: decisions that stand in many tables together are looked up together.

    Example:
        >>> one = np.array([1, 2])
        >>> merged({(0,): one, (0, 1): np.ones((2, 2), dtype=int), (2,): one}, (2, 2, 2))
        [((0, 1, 2), array([[[3, 4],
                [3, 4]],
        <BLANKLINE>
               [[4, 5],
                [4, 5]]]))]
    """
    left = set(tables)
    found: list[tuple[Key, Table]] = []
    while left:
        start = max(left, key=lambda key: (len(key), [-number for number in key]))
        chosen = set(start)
        touching = {key for key in left if chosen & set(key)}
        while True:
            entries = math.prod(counts[number] for number in chosen)
            gains: dict[int, int] = {}
            for key in touching if chosen else left:
                new = set(key) - chosen
                if len(new) == 1:
                    (number,) = new
                    gains[number] = gains.get(number, 0) + 1
            gains = {number: gain for number, gain in gains.items() if entries * counts[number] <= _MERGED}
            if not gains:
                others = {number for key in left for number in key if len(key) == 1} - chosen
                gains = {number: 1 for number in others if entries * counts[number] <= _MERGED}
            if not gains:
                break
            number = max(gains, key=lambda one: (gains[one], -one))
            chosen.add(number)
            touching |= {key for key in left if number in key}
        inside = {key for key in left if set(key) <= chosen}
        found.append(_merge({key: tables[key] for key in inside}, counts))
        left -= inside
    return found


def _dominant(touching: Iterable[tuple[Key, Table]], decision: int) -> int | None:
    """The first choice that is nowhere worse than another one in any table."""
    best: NDArray[np.bool_] | None = None
    for key, table in touching:
        axis = key.index(decision)
        rows = np.moveaxis(table, axis, 0).reshape(table.shape[axis], -1)
        here = (rows == rows.min(axis=0)).all(axis=1)
        best = here if best is None else best & here
    if best is None:
        return 0
    return int(best.argmax()) if best.any() else None


def _decided(tables: Mapping[Key, Table], decision: int, code: int) -> dict[Key, Table]:
    found: dict[Key, Table] = {}
    for key, table in tables.items():
        axis = key.index(decision) if decision in key else None
        rest = tuple(number for number in key if number != decision)
        part: Table = table if axis is None else np.asarray(table.take(code, axis=axis))
        found[rest] = found[rest] + part if rest in found else part
    return found


def _entries(tables: Iterable[Key], counts: Sequence[int], decision: int) -> int:
    """How large the table is that eliminates a decision."""
    together = {number for key in tables if decision in key for number in key} | {decision}
    return math.prod(counts[number] for number in together)


def _merge(tables: Mapping[Key, Table], counts: Sequence[int], extra: Key = ()) -> tuple[Key, Table]:
    key = tuple(sorted({decision for k in tables for decision in k} | set(extra)))
    total = np.zeros([counts[decision] for decision in key], dtype=np.int64)
    for decisions, table in tables.items():
        total += along(np.asarray(table), decisions, key)
    return key, total
