"""Labels of a tensor, dimension by dimension, and what data movement, addition and reshaping do to them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .atoms import ALWAYS, ANYTHING, Atoms, Ids, distinct

Dim = tuple[Ids, ...]
"""The labels of one dimension: components, each an atom for every position. `()`: nothing along it may be removed."""
Labels = tuple[Dim, ...]
"""The labels of a tensor, one `Dim` for each dimension."""


class LabelMismatchError(Exception):
    """Two dimensions that must agree, and do not: raised where labels are only checked."""

    def __init__(self, message: str, atoms: Ids) -> None:
        super().__init__(message)
        self.atoms = atoms


@dataclass(slots=True)
class DimAlgebra:
    """What operations do to labels.

    Attributes:
        atoms: what the labels are made of.
        checking: whether nothing may be learned any more: what does not agree is an error, as when a sliced model is
            observed with the labels that its full parameters have.
    """

    atoms: Atoms
    checking: bool = False

    # ---- reading ---------------------------------------------------------------------------------------------------

    def resolve(self, dim: Dim) -> list[Ids]:
        """The components in free atoms; an atom stands once at a position."""
        return distinct([component for part in dim for component in self.atoms.resolve(part)])

    def free(self, dim: Dim) -> bool:
        """Whether anything along the dimension may be removed."""
        return bool(dim) and bool(self.resolve(dim))

    def atoms_of(self, dim: Dim) -> Ids:
        """Every free atom along the dimension, once."""
        found = [np.unique(component) for component in self.resolve(dim)]
        every: Ids = np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
        kept: Ids = every[every != ALWAYS]
        return kept

    def fresh(self, size: int) -> Dim:
        """A dimension of which every position may be removed."""
        return (self.atoms.new(size),) if size > 1 and not self.checking else ()

    # ---- learning ----------------------------------------------------------------------------------------------------

    def freeze(self, dim: Dim, reason: str) -> None:
        """Let nothing along the dimension be removed."""
        if dim and not self.checking:
            for part in dim:
                self.atoms.freeze(part, reason)

    def unify(self, one: Dim, other: Dim, reason: str) -> Dim:
        """Let two dimensions of equal size keep the same positions; gives the labels of both."""
        if one is other or (not one and not other):
            return one
        a, b = self.resolve(one), self.resolve(other)
        if self.checking:
            self._check_equal(a, b, reason)
            return other if not one or any((part == ANYTHING).any() for part in one) else one
        if not a or not b:
            for component in a or b:
                self.atoms.freeze(component, f"tied to what is constant, by {reason}")
            return ()
        a, b = self._without_common(a, b)
        if not a and not b:
            return one
        if not a or not b:
            for component in a or b:
                self.atoms.freeze(component, reason)
        elif len(a) == 1 or len(b) == 1:
            (single,), several = (a, b) if len(a) == 1 else (b, a)
            self._stand_for(single, several, reason)
        else:
            self._match(a, b, reason)
        return one

    def tie_counts(self, one: Dim, other: Dim, reason: str) -> None:
        """Let as many positions be kept of one dimension as of another that is as long.

        That holds already where they are made of the same channels in another order; else the same positions are kept.
        """
        left, right = _as_sets(self.resolve(one), self.resolve(other))
        if left.shape != right.shape or not np.array_equal(_in_any_order(left), _in_any_order(right)):
            self.unify(one, other, reason)

    def _check_equal(self, a: list[Ids], b: list[Ids], reason: str) -> None:
        # A component with one atom everywhere is what is left of a rectangle with one row or column: it tells nothing.
        varying = [[x for x in side if (x != x[:1]).any()] for side in (a, b)]
        if _disagreement(a, b) is None or (wrong := _disagreement(*varying)) is None:
            return
        raise LabelMismatchError(f"{reason}: channels meet that do not belong together", wrong[wrong > ANYTHING])

    def _without_common(self, a: list[Ids], b: list[Ids]) -> tuple[list[Ids], list[Ids]]:
        """Components that are equal on both sides say nothing new."""
        b = list(b)
        left: list[Ids] = []
        for component in a:
            same = next((i for i, other in enumerate(b) if np.array_equal(component, other)), None)
            if same is None:
                left.append(component)
            else:
                del b[same]
        return left, b

    def _stand_for(self, single: Ids, several: list[Ids], reason: str) -> None:
        """Let each atom of `single` be the conjunction of what stands at its place in `several`."""
        if len(several) == 1:
            self.atoms.unite(single, several[0])
            return
        first, rest = several[0], several[1:]
        if len(rest) > 1:
            combined, places = np.unique(np.stack(rest), axis=1, return_inverse=True)
            ids = self.atoms.new(combined.shape[1])
            self._stand_for(ids, list(combined), reason)
            second = ids[places.reshape(-1)]
        else:
            second = rest[0]
        self.atoms.define(single, first, second, reason)

    def _match(self, a: list[Ids], b: list[Ids], reason: str) -> None:
        """Unite components that divide the positions alike; what divides them otherwise cannot be followed."""
        b = list(b)
        for component in a:
            pattern = _pattern(component)
            same = next((i for i, other in enumerate(b) if np.array_equal(pattern, _pattern(other))), None)
            if same is None:
                self.atoms.freeze(component, f"{reason}, which divides the channels in another way")
            else:
                self.atoms.unite(component, b.pop(same))
        for other in b:
            self.atoms.freeze(other, f"{reason}, which divides the channels in another way")

    # ---- reshaping ---------------------------------------------------------------------------------------------------

    def reshape(self, labels: Labels, shape: Sequence[int], new_shape: Sequence[int], reason: str) -> Labels:
        """The labels after `view`: dimensions are merged and split."""
        result: list[Dim] = [() for _ in new_shape]
        for old, new in _groups(shape, new_shape):
            if len(old) == 1 and len(new) == 1:
                result[new[0]] = labels[old[0]]
            elif any(labels[i] for i in old):
                merged = self.merge([labels[i] for i in old], [shape[i] for i in old])
                for i, dim in zip(new, self.split(merged, [new_shape[i] for i in new], reason), strict=True):
                    result[i] = dim
        return tuple(result)

    def merge(self, dims: Sequence[Dim], sizes: Sequence[int]) -> Dim:
        """One dimension made of several, the last one moving fastest."""
        merged: list[Ids] = []
        for number, dim in enumerate(dims):
            outer, inner = math.prod(sizes[:number]), math.prod(sizes[number + 1 :])
            merged += [np.tile(np.repeat(component, inner), outer) for component in dim]
        return tuple(merged)

    def split(self, dim: Dim, sizes: Sequence[int], reason: str) -> list[Dim]:
        """One dimension as several: what remains of it must be a rectangle."""
        if len(sizes) == 1:
            return [dim]
        rows, columns = self._split_in_two(dim, sizes[0], math.prod(sizes[1:]), reason)
        return [rows, *self.split(columns, sizes[1:], reason)]

    def _split_in_two(self, dim: Dim, num_rows: int, num_columns: int, reason: str) -> tuple[Dim, Dim]:
        rows: list[Ids] = []
        columns: list[Ids] = []
        waiting = self.resolve(dim)
        while waiting:
            table = waiting.pop(0).reshape(num_rows, num_columns)
            if (table == table[:, :1]).all():
                rows.append(table[:, 0])
            elif (table == table[:1]).all():
                columns.append(table[0])
            elif self.checking:
                raise LabelMismatchError(f"{reason}: what remains is no rectangle", np.unique(table))
            else:
                row, column = self._rectangle(table, reason)
                rows.append(row)
                columns.append(column)
                # Dividing these atoms may have divided those of the components to come.
                waiting = self.resolve(tuple(waiting))
        return tuple(rows), tuple(columns)

    def _rectangle(self, table: Ids, reason: str) -> tuple[Ids, Ids]:
        """New atoms for the rows and columns of a table of atoms, which each stand for their row and column from now on."""
        _, row_of = np.unique(table, axis=0, return_inverse=True)
        _, column_of = np.unique(table, axis=1, return_inverse=True)
        row_of, column_of = row_of.reshape(-1), column_of.reshape(-1)
        row_of, column_of = _in_order(row_of), _in_order(column_of)
        row_ids, column_ids = self.atoms.new(int(row_of.max()) + 1), self.atoms.new(int(column_of.max()) + 1)
        rows, columns = row_ids[row_of], column_ids[column_of]
        self.atoms.define(
            table.reshape(-1),
            np.repeat(rows, table.shape[1]),
            np.tile(columns, table.shape[0]),
            f"{reason}, no rectangle",
        )
        return rows, columns


def _groups(shape: Sequence[int], new_shape: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Which dimensions a view merges and splits into which; dimensions of size 1 come and go without meaning."""
    old = [i for i, size in enumerate(shape) if size != 1]
    new = [i for i, size in enumerate(new_shape) if size != 1]
    while old and new:
        left, right = [old.pop(0)], [new.pop(0)]
        a, b = shape[left[0]], new_shape[right[0]]
        while a != b:
            if a < b:
                left.append(old.pop(0))
                a *= shape[left[-1]]
            else:
                right.append(new.pop(0))
                b *= new_shape[right[-1]]
        yield left, right


def _pattern(component: Ids) -> Ids:
    """Which positions have equal atoms, whatever these are."""
    _, inverse = np.unique(component, return_inverse=True)
    return _in_order(inverse.reshape(-1))


def _in_order(numbers: Ids) -> Ids:
    """The same classes, numbered as they appear."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)]


def _as_sets(a: list[Ids], b: list[Ids]) -> tuple[Ids, Ids]:
    """Both sides as sorted columns of atoms, padded to one height."""
    height = max(len(a), len(b), 1)
    size = max((len(x) for x in (*a, *b)), default=0)
    both = []
    for side in (a, b):
        length = len(side[0]) if side else size
        padded = np.full((height, length), ALWAYS, dtype=np.int64)
        for row, component in enumerate(side):
            padded[row] = component
        both.append(np.sort(padded, axis=0))
    return both[0], both[1]


def _in_any_order(columns: Ids) -> Ids:
    return columns[:, np.lexsort(columns)]


def _disagreement(a: list[Ids], b: list[Ids]) -> Ids | None:
    """The atoms where two dimensions are not the same channels; `None` where they may be."""
    left, right = _as_sets(a, b)
    if left.shape != right.shape:
        return np.unique(np.concatenate([*a, *b]))
    columns = np.flatnonzero((left != right).any(axis=0)).tolist()
    wrong = [column for column in columns if not _may_be_equal(left[:, column], right[:, column])]
    return np.unique(np.concatenate([left[:, wrong], right[:, wrong]])) if wrong else None


def _may_be_equal(one: Ids, other: Ids) -> bool:
    """Whether the same channel may stand in both places: what is left of one row or column of a rectangle lacks an atom."""
    left, right = (set(side[side != ALWAYS].tolist()) for side in (one, other))
    return ANYTHING in left | right or (bool(left and right) and (left <= right or right <= left))
