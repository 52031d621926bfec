"""A model that reads each channel times a number, without a change to its modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from mutorch.errors import StateError
from mutorch.mutables import DerivedMutable, MutableChannelContainer
from mutorch.mutables.rules import ConcatMask, RepeatedMask, length_of

from .dynamic import STATE, DynamicState, dynamic_modules
from .extent import Extent
from .grouped import GroupedWeight


@contextmanager
def scaled_columns(model: nn.Module, scales: Mapping[int, Tensor]) -> Iterator[set[int]]:
    """Let every convolution and linear layer read its input channels times their scales, with gradients for the scales.

    A column of a weight is multiplied instead of the channel that it reads. Depthwise convolutions pass channels on, as they
    are: what reads their outputs scales them.

    Args:
        scales: by the id of a channel mutable, a number for each of its channels.

    Returns:
        The ids of the mutables that something reads.

    Errors:
        StateError: channels derived in another way than by repeating them.
    """
    before: list[tuple[nn.Module, nn.Parameter]] = []
    read: set[int] = set()
    try:
        for _, module, state in dynamic_modules(model):
            weight = module._parameters.get("weight")
            extent = _columns(module, state)
            if weight is None or extent is None:
                continue
            scale, known = _scale(extent, scales, weight)
            if not known:
                continue
            read |= known
            before.append((module, weight))
            held: dict[str, Any] = module._parameters
            held["weight"] = weight * _along(module, weight, scale)
        yield read
    finally:
        for module, weight in before:
            module._parameters["weight"] = weight


def _columns(module: nn.Module, state: DynamicState) -> Extent | None:
    """What is active of the channels that a layer reads; `None` where it reads none by a column of its weight."""
    if not isinstance(module, nn.Linear | _ConvNd) or module.__dict__.get(STATE) is not state:
        return None
    transposed = isinstance(module, _ConvTransposeNd)
    if isinstance(module, _ConvNd) and vars(module)["groups"] > 1:
        rule = state.rules.get("weight")
        if not isinstance(rule, GroupedWeight) or transposed or rule.columns == rule.groups:
            return None
        return rule.column_extent
    dim = 0 if transposed else 1
    return next((extent for own, extent in state.tensors.get("weight", ()) if own == dim), None)


def _scale(extent: Extent, scales: Mapping[int, Tensor], like: Tensor) -> tuple[Tensor, set[int]]:
    """A number for each position along an extent, the product over its components; and the mutables that decide it."""
    total, known = like.new_ones(extent.size), set()
    found = [_of_channel(channel, scales, like) for channel in extent.channels]
    for which, index in extent.components:
        for number, (scale, ids) in enumerate(found):
            here = which == number
            if ids and here.any():
                known |= ids
                positions = torch.from_numpy(here.nonzero()[0]).to(like.device)
                places = torch.from_numpy(index[here]).to(like.device)
                total = total * like.new_ones(extent.size).index_copy(0, positions, scale[places])
    return total, known


def _of_channel(channel: Any, scales: Mapping[int, Tensor], like: Tensor) -> tuple[Tensor, set[int]]:
    """The scales of what decides channels, and the mutables that these come from: none where they are all 1."""
    if id(channel) in scales:
        return scales[id(channel)].to(like), {id(channel)}
    parts: list[tuple[Tensor, set[int]]] = []
    if isinstance(channel, MutableChannelContainer):
        covered = 0
        for (start, end), member in channel.registered.items():
            parts += [(like.new_ones(start - covered), set()), _of_channel(member, scales, like)]
            covered = end
        parts.append((like.new_ones(channel.num_channels - covered), set()))
    elif isinstance(channel, DerivedMutable):
        parts = _of_derived(channel, scales, like)
    else:
        parts = [(like.new_ones(channel.num_channels), set())]
    return torch.cat([scale for scale, _ in parts]), {one for _, ids in parts for one in ids}


def _of_derived(derived: DerivedMutable, scales: Mapping[int, Tensor], like: Tensor) -> list[tuple[Tensor, set[int]]]:
    """Those of channels that come several times: side by side, or one whole after the other."""
    rule, length = derived._mask_fn, length_of(derived)
    if not any(id(source) in scales for source in derived.sources):
        return [(like.new_ones(length), set())]
    if isinstance(rule, ConcatMask):
        return [_of_channel(member, scales, like) for member in rule.members]
    if isinstance(rule, RepeatedMask):
        scale, ids = _of_channel(rule.source, scales, like)
        return [(scale.repeat_interleave(rule.times), ids)]
    raise StateError(
        f"what {derived!r} keeps is computed from its source, so that the probability of each channel is unknown; register a "
        "channel mutable, or one of its expand_mutable_channel"
    )


def _along(module: nn.Module, weight: Tensor, scale: Tensor) -> Tensor:
    """The scale in the shape that multiplies a weight."""
    if isinstance(module, _ConvTransposeNd):
        return scale.view(-1, *[1] * (weight.dim() - 1))
    groups = vars(module).get("groups", 1)
    per_group = scale.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1).flatten(0, 1)
    return per_group.view(*per_group.shape, *[1] * (weight.dim() - 2))
