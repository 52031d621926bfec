"""The active part of the weight of a grouped convolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mutorch.errors import ChoiceError
from mutorch.mutables.clock import CLOCK

from .dynamic import Dims, FollowedSize, Mode
from .extent import Extent

Bools = NDArray[np.bool_]


class GroupedWeight:
    """Which rows and columns of a grouped weight are active, and how many groups are left.

    Channels stay in their groups. A group whose channels are all gone on both sides goes; the others must keep equally
    many, or there is no such convolution. A depthwise one, where each group has one input, is the simplest case.

    Args:
        groups: how many groups there are with all channels.
        rows, columns: how many channels make dimension 0, and dimension 1 times the groups.
        row_extent, column_extent: what is active of them; `None` for all.
    """

    def __init__(
        self, groups: int, rows: int, columns: int, row_extent: Extent | None, column_extent: Extent | None
    ) -> None:
        self.groups, self.rows, self.columns = groups, rows, columns
        self.row_extent, self.column_extent = row_extent, column_extent
        self._now = -1
        self._found: tuple[int, int | Tensor, Tensor | None] = (groups, rows, None)

    def count(self) -> int:
        """How many groups are left."""
        return self._select()[0]

    def read(self, name: str, whole: Tensor, dims: Dims, mode: Mode) -> Tensor:
        """The active part of the weight; in mask mode the weight with zeros elsewhere."""
        if mode == "mask":
            return self._masked(whole)
        groups, rows, columns = self._select()
        part = whole.narrow(0, 0, rows) if isinstance(rows, int) else whole.index_select(0, rows.to(whole.device))
        if columns is None:
            return part
        columns = columns.to(whole.device)
        if bool((columns == columns[:1]).all()):
            return part.index_select(1, columns[0])
        of_group = part.view(groups, -1, *part.shape[1:])
        index = columns.view(groups, 1, -1, *[1] * (whole.dim() - 2))
        return of_group.gather(2, index.expand(-1, of_group.shape[1], -1, *whole.shape[2:])).flatten(0, 1)

    def _select(self) -> tuple[int, int | Tensor, Tensor | None]:
        """The groups that are left, their rows, and for each its columns (`None`: all)."""
        if self._now != CLOCK.now:
            rows = _alive(self.row_extent, self.rows).reshape(self.groups, -1)
            columns = _alive(self.column_extent, self.columns).reshape(self.groups, -1)
            kept = rows.any(1) | columns.any(1)
            for counts, side in ((rows[kept].sum(1), "row"), (columns[kept].sum(1), "column")):
                if len(counts) == 0 or counts.min() != counts.max() or counts.min() == 0:
                    raise ChoiceError(
                        f"a convolution in {self.groups} groups must keep equally many channels in each group that it keeps, "
                        f"got {counts.tolist()} ({side}s of the weight); choose channels at the same places of every group"
                    )
            where = np.flatnonzero(rows.reshape(-1))
            leading = where[-1] == len(where) - 1
            every = bool(columns[kept].all())
            index = np.stack([np.flatnonzero(row) for row in columns[kept]])
            self._found = (
                int(kept.sum()),
                len(where) if leading else torch.from_numpy(where),
                None if every else torch.from_numpy(index),
            )
            self._now = CLOCK.now
        return self._found

    def _masked(self, whole: Tensor) -> Tensor:
        if self.row_extent is not None:
            whole = whole * self.row_extent.mask(whole.device).to(whole.dtype).view(-1, *[1] * (whole.dim() - 1))
        if self.column_extent is not None:
            mask = self.column_extent.mask(whole.device).to(whole.dtype).view(self.groups, 1, -1)
            mask = mask.expand(-1, self.rows // self.groups, -1).flatten(0, 1)
            whole = whole * mask.view(*mask.shape, *[1] * (whole.dim() - 2))
        return whole


@dataclass(frozen=True, slots=True)
class FollowedGroups(FollowedSize):
    """The number of groups that are left."""

    weight: GroupedWeight | None = None

    def value(self) -> int:
        """The number now."""
        assert self.weight is not None
        return self.weight.count()


def _alive(extent: Extent | None, size: int) -> Bools:
    return np.ones(size, dtype=np.bool_) if extent is None else extent.alive()
