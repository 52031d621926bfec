"""Channels that several mutables share out between them."""

from typing import Any, Protocol

import torch
from torch import Tensor

from mutorch.errors import ChoiceError, DerivedError
from mutorch.utils import IndexDict

from .activity import Active, as_mask, joined
from .base import BaseMutable
from .channel import BaseMutableChannel
from .clock import tick
from .derived import DerivedMutable
from .dump import DumpChosen
from .rules import active_of, has_mask, length_of
from .simple_channel import SimpleMutableChannel


class ContainerError(DerivedError, NotImplementedError):
    """A choice given to a container, which only has those of its members."""


class HasMutableAttrs(Protocol):
    """A module whose sizes are mutables under names: a dynamic op."""

    def get_mutable_attr(self, attr: str) -> Any:
        """The mutable registered as `attr`; `None` without one."""


class MutableChannelContainer(BaseMutableChannel):
    """The channels of one side of a module, in ranges that mutables are registered for (seed 001).

    The masks of the members, one after the other, are its mask. Channels that nothing is registered for are active: when
    the container is read, they get a `SimpleMutableChannel`, which gives way to one registered later. It has no choice
    of its own and is no decision; the members are not its child modules, they belong to whoever chooses for them.

    Args:
        num_channels, kwargs: see `BaseMutableChannel`.

    Attributes:
        mutable_channels: `(start, end)` to the member, ascending.

    Example:
        >>> from mutorch.mutables import SequentialMutableChannel
        >>> container, width = MutableChannelContainer(8), SequentialMutableChannel(4)
        >>> container.register_mutable(width, 2, 6)
        >>> width.current_choice = 1
        >>> container.current_mask.int().tolist()
        [1, 1, 1, 0, 0, 0, 1, 1]
        >>> list(container.mutable_channels)
        [(0, 2), (2, 6), (6, 8)]
    """

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(num_channels, **kwargs)
        self.mutable_channels: IndexDict[BaseMutable[Any, Any]] = IndexDict()
        self._filled: list[tuple[int, int]] = []

    def register_mutable(self, mutable_channel: BaseMutable[Any, Any], start: int, end: int) -> None:
        """Let `mutable_channel` decide about the channels from `start` to before `end`.

        Args:
            mutable_channel: a channel mutable, or one derived from channel mutables, of `end - start` channels.

        Errors:
            ChoiceError: a range that overlaps another one or leaves the container, or of another length than the mutable
                (also `AssertionError`).
            TypeError: something without channels.
            FixedError: the container is fixed.
        """
        self._check_not_fixed()
        if not isinstance(mutable_channel, BaseMutableChannel | DerivedMutable) or not has_mask(mutable_channel):
            raise TypeError(f"only mutables with channels can be registered, got {mutable_channel!r}")
        if not 0 <= start < end <= self.num_channels:
            raise ChoiceError(f"range ({start}, {end}) is not in a container of {self.num_channels} channels")
        if length_of(mutable_channel) != end - start:
            raise ChoiceError(
                f"range ({start}, {end}) has {end - start} channels, the mutable {length_of(mutable_channel)}: "
                f"{mutable_channel!r}"
            )
        gone = [held for held in self._filled if held[0] < end and start < held[1]]
        taken = [held for held in self.mutable_channels if held[0] < end and start < held[1] and held not in gone]
        if taken:
            raise ChoiceError(f"range ({start}, {end}) overlaps {taken[0]}, which is registered already")
        for held in gone:
            del self.mutable_channels[held]
            self._filled.remove(held)
        self.mutable_channels[start, end] = mutable_channel
        tick()

    @property
    def registered(self) -> dict[tuple[int, int], BaseMutable[Any, Any]]:
        """`(start, end)` to the members that were registered, ascending."""
        return {held: member for held, member in self.mutable_channels.items() if held not in self._filled}

    @classmethod
    def register_mutable_channel_to_module(
        cls,
        module: HasMutableAttrs,
        mutable: BaseMutable[Any, Any],
        is_to_output_channel: bool = True,
        start: int = 0,
        end: int = -1,
    ) -> None:
        """Register `mutable` in the container that a dynamic op has for its output or input channels.

        Args:
            end: -1: as far as the channels of the mutable reach.

        Errors:
            ChoiceError: the op has no container there (also `AssertionError`); see `register_mutable`.
        """
        attr = "out_channels" if is_to_output_channel else "in_channels"
        container = module.get_mutable_attr(attr)
        if not isinstance(container, MutableChannelContainer):
            raise ChoiceError(
                f"{type(module).__name__} has no MutableChannelContainer for {attr}, but {container!r}; "
                f"register_mutable_attr({attr!r}, MutableChannelContainer(...)) first"
            )
        container.register_mutable(mutable, start, start + length_of(mutable) if end == -1 else end)

    @property
    def is_decision(self) -> bool:
        """`False`: its members may be."""
        return False

    @property
    def current_choice(self) -> Tensor:
        """The mask of all members.

        Errors:
            ContainerError: when set (also `NotImplementedError`); set the members.
        """
        return self.current_mask

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        raise ContainerError(f"{self!r} has the choices of its members; set theirs")

    def assign(self, choice: Any) -> None:
        pass  # what puts earlier choices back assigns to the members too

    @property
    def current_mask(self) -> Tensor:
        """The masks of the members one after the other, a new bool tensor on the CPU."""
        return as_mask(self.active(), self.num_channels)

    @property
    def choices(self) -> list[Tensor]:
        """The mask in force."""
        return [self.current_mask]

    def active(self) -> Active:
        self._fill()
        return joined((end - start, active_of(member)) for (start, end), member in self.mutable_channels.items())

    def dump_chosen(self) -> DumpChosen:
        """The active positions, with the number of all channels as meta."""
        return DumpChosen(chosen=self.active_index().tolist(), meta={"max_channels": self.num_channels})

    def _fill(self) -> None:
        free, gaps = 0, []
        for start, end in self.mutable_channels:
            if free < start:
                gaps.append((free, start))
            free = end
        if free < self.num_channels:
            gaps.append((free, self.num_channels))
        for gap in gaps:
            with torch.device("cpu"):
                self.mutable_channels[gap] = SimpleMutableChannel(gap[1] - gap[0])
            self._filled.append(gap)
