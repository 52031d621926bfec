"""What is active along one dimension of a tensor, as the channel mutables that decide it say."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mutorch.mutables.clock import CLOCK

Selection = int | Tensor | None
"""The first so many positions, positions as an int64 tensor, or `None` for all."""
ALWAYS = -1
"""In a component: a position that no channel decides."""


class Extent:
    """Which positions along a dimension are active: those where every component's channel is.

    Args:
        size: how many positions there are.
        channels: the channel mutables that decide; anything with `num_channels` and `active()`.
        components: for each component, which of `channels` decides a position and which of its channels that position
            is; arrays of `size` integers, `ALWAYS` where nothing decides. Two components are a rectangle: the channels of
            an attention layer are active where their head and their place in it are.

    Example:
        >>> from mutorch.mutables import SequentialMutableChannel
        >>> width = SequentialMutableChannel(4)
        >>> extent = Extent.of(width, repeats=2)  # as flattening two pixels gives
        >>> width.current_choice = 3
        >>> extent.selection(), extent.count()
        (6, 6)
    """

    def __init__(
        self, size: int, channels: Sequence[Any], components: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
    ) -> None:
        self.size = size
        self.channels = tuple(channels)
        self.components = tuple(components)
        self._repeats = self._leading_repeats()
        self._now = -1
        self._selection: Selection = None
        self._masks: dict[torch.device, Tensor] = {}
        self._masked: Selection = None
        self._index: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(cls, channel: Any, *, repeats: int = 1) -> "Extent":
        """The extent of a dimension whose positions are the channels, each `repeats` times in a row."""
        index = np.arange(channel.num_channels, dtype=np.int64).repeat(repeats)
        return cls(len(index), [channel], [(np.zeros_like(index), index)])

    def selection(self) -> Selection:
        """What is active now."""
        if torch.compiler.is_compiling():
            return self._selected()  # so that a graph is of the widths that it was compiled with, not of a moment
        if self._now != CLOCK.now:
            self._selection = self._selected()
            self._now = CLOCK.now
        return self._selection

    def count(self) -> int:
        """How many positions are active now."""
        selection = self.selection()
        return self.size if selection is None else selection if isinstance(selection, int) else len(selection)

    def take(self, tensor: Tensor, dim: int) -> Tensor:
        """The active part of `tensor` along `dim`: a view where the first positions are active, else a copy."""
        selection = self.selection()
        if selection is None:
            return tensor
        if isinstance(selection, int):
            return tensor.narrow(dim, 0, selection)
        kept, index = self._index.get(tensor.device, (None, selection))
        if kept is not selection:
            index = selection.to(tensor.device)
            self._index[tensor.device] = selection, index
        return tensor.index_select(dim, index)

    def mask(self, device: torch.device) -> Tensor:
        """A float tensor with 1 at active positions; one tensor for ever, written in place by `refresh`.

        A compiled graph takes it as an input, and reads nothing else of the extent: it must have been asked for before.
        """
        if device not in self._masks:
            with torch.inference_mode(False):
                self._masks[device] = torch.ones(self.size, device=device)
            self.refresh()
        elif not torch.compiler.is_compiling() and not _same(self._masked, self.selection()):
            self.refresh()  # no unit did
        return self._masks[device]

    def refresh(self) -> None:
        """Bring the masks up to date, so that a compiled graph that reads them computes the current architecture."""
        if self._masks:
            self._masked = self.selection()
            alive = torch.from_numpy(self.alive().astype(np.float32))
            for mask in self._masks.values():
                mask.copy_(alive)

    def alive(self) -> NDArray[np.bool_]:
        """Which positions are active now."""
        alive = np.ones(self.size, dtype=np.bool_)
        for which, index in self.components:
            for number, channel in enumerate(self.channels):
                here = which == number
                if here.any():
                    alive[here] &= _mask_of(channel)[index[here]]
        return alive

    def _selected(self) -> Selection:
        if self._repeats:
            active = self.channels[0].active()
            if isinstance(active, int):
                count = active * self._repeats
                return None if count == self.size else count
        selection: Selection = self._found()
        return selection

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _found(self) -> Selection:
        alive = self.alive()
        count = int(alive.sum())
        if count == self.size:
            return None
        if alive[:count].all():
            return count
        return torch.from_numpy(np.flatnonzero(alive))

    def _leading_repeats(self) -> int:
        """How often in a row each channel of the only mutable comes, in order; 0 for any other layout."""
        if len(self.channels) != 1 or len(self.components) != 1:
            return 0
        which, index = self.components[0]
        repeats, rest = divmod(self.size, self.channels[0].num_channels)
        expected = np.arange(self.channels[0].num_channels).repeat(max(repeats, 1))
        return repeats if not rest and not which.any() and np.array_equal(index, expected) else 0


def _same(one: Selection, other: Selection) -> bool:
    return one is other or (isinstance(one, int) and isinstance(other, int) and one == other)


def _mask_of(channel: Any) -> NDArray[np.bool_]:
    mask = np.zeros(channel.num_channels, dtype=np.bool_)
    active = channel.active()
    mask[slice(active) if isinstance(active, int) else active.numpy()] = True
    return mask
