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
        tables, codes = _without_dominated(self.tables, len(self.counts))
        undecided = {decision for decision, code in enumerate(codes) if code is None}
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
        return [int(code or 0) for code in codes]

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
    touching: dict[int, list[Key]] = {}
    for key in tables:
        for number in key:
            touching.setdefault(number, []).append(key)
    left = set(tables)
    found: list[tuple[Key, Table]] = []
    for start in sorted(tables, key=lambda key: (-len(key), key)):
        if start in left:
            inside = _together(start, left, touching, counts)
            left -= inside
            found.append(_merge({key: tables[key] for key in inside}, counts))
    return found


def _together(start: Key, left: set[Key], touching: Mapping[int, list[Key]], counts: Sequence[int]) -> set[Key]:
    """The tables that one of the size of `_MERGED` has room for, `start` first, and as many as can be."""
    chosen: set[int] = set()
    inside: set[Key] = set()
    gains: dict[int, int] = {}
    entries, waiting = 1, list(start)
    while waiting:
        number = waiting.pop()
        chosen.add(number)
        gains.pop(number, None)
        entries *= counts[number]
        for key in touching[number]:
            missing = [other for other in key if other not in chosen] if key in left else [0, 0]
            if not missing:
                inside.add(key)
            elif len(missing) == 1:
                gains[missing[0]] = gains.get(missing[0], 0) + 1
        if not waiting:
            room = [other for other in gains if entries * counts[other] <= _MERGED]
            if not room:  # tables of one decision fit anywhere
                room = [other for other in touching if other not in chosen and (other,) in left]
                room = [other for other in room if entries * counts[other] <= _MERGED]
            waiting = [max(room, key=lambda other: (gains.get(other, 0), -other))] if room else []
    return inside or {start}


def _without_dominated(tables: Mapping[Key, Table], count: int) -> tuple[dict[Key, Table], list[int | None]]:
    """The tables of the decisions that are left when those with a best choice have taken it, and these choices."""
    left = dict(tables)
    codes: list[int | None] = [None] * count
    touching: list[set[Key]] = [set() for _ in range(count)]
    for key in left:
        for decision in key:
            touching[decision].add(key)
    waiting = set(range(count))
    while waiting:
        decision = min(waiting)
        waiting.remove(decision)
        best = _dominant([(key, left[key]) for key in touching[decision]], decision)
        if best is None:
            continue
        codes[decision] = best
        for key in sorted(touching[decision]):
            rest = tuple(number for number in key if number != decision)
            part = np.asarray(left.pop(key).take(best, axis=key.index(decision)))
            left[rest] = np.asarray(left[rest] + part) if rest in left else part
            for number in rest:
                touching[number].remove(key)
                touching[number].add(rest)
            # What a decision shared with this one is smaller now: it may have a best choice where it had none.
            waiting |= {number for number in rest if codes[number] is None}
    return left, codes


def _dominant(touching: Iterable[tuple[Key, Table]], decision: int) -> int | None:
    """The first choice that is nowhere worse than another one in any table."""
    best: NDArray[np.bool_] | None = None
    for key, table in touching:
        axis = key.index(decision)
        here = (table == table.min(axis=axis, keepdims=True)).all(axis=tuple(n for n in range(len(key)) if n != axis))
        best = here if best is None else best & here
    if best is None:
        return 0
    return int(best.argmax()) if best.any() else None


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
