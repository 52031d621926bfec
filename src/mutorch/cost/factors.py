"""A function of many decisions as a sum of small tables, each over the few decisions that it depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.integer]
Table = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Factors:
    """`f(codes) = sum over (decisions, table) of table[codes[decisions]]`, exact in integers.

    Attributes:
        counts: how many choices each decision has.
        tables: from the indices of decisions, ascending, to an int64 table with one axis for each.
    """

    counts: tuple[int, ...]
    tables: Mapping[tuple[int, ...], Table]

    def evaluate(self, codes: Codes) -> NDArray[np.int64]:
        """The values at `codes`, an integer array (architectures, decisions): one look-up and addition a table."""
        total = np.zeros(len(codes), dtype=np.int64)
        for decisions, table in self.tables.items():
            if decisions:
                # Flat indices: one gather in a small table is far cheaper than indexing along several axes.
                flat = codes[:, decisions[0]].astype(np.intp)
                for axis, decision in enumerate(decisions[1:], start=1):
                    flat = flat * table.shape[axis] + codes[:, decision]
                total += table.reshape(-1)[flat]
            else:
                total += table
        return total

    def minimum(self) -> list[int]:
        """The codes of the smallest value, exactly: decisions are eliminated one after the other (min-sum)."""
        tables = dict(self.tables)
        eliminated: list[tuple[int, tuple[int, ...], NDArray[np.intp]]] = []
        for decision in self._elimination_order():
            touching = [key for key in tables if decision in key]
            merged = _merge({key: tables.pop(key) for key in touching}, self.counts, extra=(decision,))
            key, table = merged
            axis = key.index(decision)
            rest = key[:axis] + key[axis + 1 :]
            eliminated.append((decision, rest, table.argmin(axis=axis)))
            smallest = table.min(axis=axis)
            tables[rest] = tables[rest] + smallest if rest in tables else smallest
        codes = [0] * len(self.counts)
        for decision, rest, best in reversed(eliminated):
            codes[decision] = int(best[tuple(codes[other] for other in rest)])
        return codes

    def negated(self) -> "Factors":
        """The function with the other sign; its minimum is this one's maximum."""
        return Factors(self.counts, {key: -table for key, table in self.tables.items()})

    def _elimination_order(self) -> list[int]:
        """Decisions with the fewest partners first, so that merged tables stay small."""
        partners: dict[int, set[int]] = {decision: set() for decision in range(len(self.counts))}
        for key in self.tables:
            for decision in key:
                partners[decision] |= set(key)
        return sorted(partners, key=lambda decision: (len(partners[decision]), decision))


def _merge(
    tables: Mapping[tuple[int, ...], Table], counts: Sequence[int], extra: tuple[int, ...] = ()
) -> tuple[tuple[int, ...], Table]:
    key = tuple(sorted({decision for k in tables for decision in k} | set(extra)))
    total = np.zeros([counts[decision] for decision in key], dtype=np.int64)
    for decisions, table in tables.items():
        total += table.reshape([counts[d] if d in decisions else 1 for d in key])
    return key, total
