"""Modules that follow a unit: made dynamic in place, with containers that know the unit's channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from mutorch.errors import ChoiceError, SpaceError
from mutorch.mutables import BaseMutable, BaseMutableChannel, DerivedMutable, MutableChannelContainer
from mutorch.ops import DynamicGroupNorm, DynamicOp
from mutorch.ops.conv import DynamicConvOp
from mutorch.ops.extent import Extent

from .channel import Channel

Table = Mapping[type[nn.Module], type[DynamicOp]]


class UnsupportedChannelError(SpaceError, NotImplementedError):
    """Channels that no mutable of their unit can decide."""


def convert_(model: nn.Module, channels: Iterable[Channel], table: Table) -> None:
    """Make the modules of these channels dynamic, in place; weights, hooks and places in the model stay.

    Only modules of exactly the classes of the table are converted.
    """
    modules = dict(model.named_modules())
    for channel in channels:
        if channel.module is None:
            channel.module = modules.get(channel.name)
        if channel.module is not None and type(channel.module) in table:
            table[type(channel.module)].convert_(channel.module)


def register(channels: Iterable[Channel], mutable: BaseMutableChannel) -> list[Extent]:
    """Let a channel mutable decide these channels, through a container on the side of the module that they are on.

    Returns:
        What follows it now.

    Errors:
        UnsupportedChannelError: fewer channels than the mutable has, or no whole number of times as many.
        ChoiceError: another mutable decides them already.
    """
    extents: dict[int, Extent] = {}
    for channel in channels:
        op = channel.module
        attr = "out_channels" if channel.is_output_channel else "in_channels"
        if not isinstance(op, DynamicOp) or not op.supports(attr):
            continue
        if op.get_mutable_attr(attr) is None:
            op.register_mutable_attr(attr, MutableChannelContainer(op.whole_size(attr)))
        container = op.get_mutable_attr(attr)
        if container is not mutable:
            _register(container, channel, mutable)
        extent = op.extent(attr)
        if extent is not None:
            extents[id(extent)] = extent
    return list(extents.values())


def _register(container: Any, channel: Channel, mutable: BaseMutableChannel) -> None:
    known = container.registered.get(channel.index) if isinstance(container, MutableChannelContainer) else container
    if known is None:
        container.register_mutable(_member(channel, mutable), channel.start, channel.end)
    elif source_of(known) is not mutable:
        raise ChoiceError(f"{channel!r} is decided by {known!r} already")


def _member(channel: Channel, mutable: BaseMutableChannel) -> BaseMutable[Any, Any]:
    """The mutable, as often as its channels come."""
    times, rest = divmod(channel.num_channels, mutable.num_channels)
    if times == 0 or rest:
        raise UnsupportedChannelError(
            f"{channel!r} has {channel.num_channels} channels, which is no multiple of the {mutable.num_channels} of its unit"
        )
    if times == 1:
        return mutable
    if _in_groups(channel.module):  # the same channels of every group
        return mutable.derive_concat_mutable([mutable] * times)
    return mutable.expand_mutable_channel(times)  # as flattening leaves them


def _in_groups(module: nn.Module | None) -> bool:
    return isinstance(module, DynamicGroupNorm) or (isinstance(module, DynamicConvOp) and vars(module)["groups"] > 1)


def source_of(mutable: Any) -> Any:
    """The channel mutable that a member of a container comes from.

    Errors:
        SpaceError: a derived one with several sources.
    """
    if not isinstance(mutable, DerivedMutable):
        return mutable
    if len(mutable.sources) != 1:
        raise SpaceError(f"channels of one unit come from one mutable, not from {len(mutable.sources)}: {mutable!r}")
    return mutable.sources[0]
