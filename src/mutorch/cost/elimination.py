"""In which order decisions are eliminated from a sum of small tables."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .amount import along
from .factors import Key

ENTRIES = 1_000_000
"""How large the tables of an elimination may be together; what would need more is split, and then bounded, not exact."""
_LIMITS = (ENTRIES, 65536, 4096, 256)


@dataclass(frozen=True, slots=True)
class Part:
    """Tables that are added up to eliminate a decision: all of its tables, or some where all would be too many.

    Attributes:
        tables: the decisions of each, messages of eliminated decisions included.
        key: the decisions of their sum.
        rest: these without the eliminated one: the decisions of the message.
    """

    tables: tuple[Key, ...]
    key: Key
    rest: Key

    def taken(self, left: dict[Key, NDArray[Any]], counts: Sequence[int]) -> NDArray[Any]:
        """The sum of its tables, which are gone from `left` then, with the eliminated decision as the last axis."""
        own = {key: left.pop(key) for key in self.tables if key in left}
        total = np.zeros([counts[number] for number in self.key], dtype=np.result_type(*own.values(), np.int64))
        for key, table in own.items():
            total += along(table, key, self.key)
        (decision,) = {*self.key} - {*self.rest}
        return np.moveaxis(total, self.key.index(decision), -1)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The elimination of one decision: one part, or several where one would be too large."""

    decision: int
    parts: tuple[Part, ...]


def send(left: dict[Key, NDArray[Any]], key: Key, message: NDArray[Any]) -> None:
    """Add what is left of an eliminated decision to the tables."""
    left[key] = np.asarray(left[key] + message if key in left else message)


def flat(columns: NDArray[Any], key: Key, counts: Sequence[int]) -> NDArray[np.intp]:
    """The place of each architecture in a table over `key`; `columns` holds codes, a row for each decision."""
    found = np.zeros(columns.shape[1], dtype=np.intp)
    for number in key:
        found *= counts[number]
        found += columns[number]
    return found


def plan(counts: Sequence[int], keys: Iterable[Key], entries: int = ENTRIES) -> list[Bucket]:
    """The order of elimination, the decision that needs the smallest table first, and what is added up for each.

    Args:
        counts: how many choices each decision has.
        keys: the decisions of each table, ascending.
        entries: how many entries all tables that are made may have, about; where no part has fewer than that, as few as can be.
    """
    keys = list(keys)
    buckets: list[Bucket] = []
    for limit in (entries, *(limit for limit in _LIMITS if limit < entries)):
        buckets = _planned(counts, keys, limit)
        if sum(_size(counts, [part.key]) for bucket in buckets for part in bucket.parts) <= entries:
            break
    return buckets


def _planned(counts: Sequence[int], keys: Iterable[Key], limit: int) -> list[Bucket]:
    touching: list[set[Key]] = [set() for _ in counts]
    for key in keys:
        for number in key:
            touching[number].add(key)
    sizes = [_size(counts, touching[number] | {(number,)}) for number in range(len(counts))]
    left = set(range(len(counts)))
    buckets = []
    while left:
        decision = min(left, key=lambda one: (sizes[one], one))
        left.remove(decision)
        parts = []
        for tables in _parts(counts, sorted(touching[decision]), limit):
            key = tuple(sorted({number for table in tables for number in table} | {decision}))
            parts.append(Part(tuple(tables), key, tuple(number for number in key if number != decision)))
        buckets.append(Bucket(decision, tuple(parts)))
        for gone in list(touching[decision]):
            for number in gone:
                touching[number].discard(gone)
        for part in parts:
            for number in part.rest:
                touching[number].add(part.rest)
        for number in {number for part in parts for number in part.rest}:
            sizes[number] = _size(counts, touching[number] | {(number,)})
    return buckets


def _parts(counts: Sequence[int], keys: list[Key], limit: int) -> list[list[Key]]:
    """The tables of a decision in as few parts as the largest table allows; one part where all fit."""
    parts: list[list[Key]] = []
    for key in sorted(keys, key=lambda one: (-_size(counts, [one]), one)):
        for part in parts:
            if _size(counts, [*part, key]) <= limit:
                part.append(key)
                break
        else:
            parts.append([key])
    return parts or [[]]


def _size(counts: Sequence[int], keys: Iterable[Key]) -> int:
    return math.prod(counts[number] for number in {number for key in keys for number in key})
