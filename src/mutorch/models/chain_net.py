"""A chain of four blocks, small enough to train every architecture: the space of the digits table."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn

from mutorch.mutables import MutableModule, OneShotMutableOP
from mutorch.registry import MODELS


def chain_net(
    num_classes: int = 10,
    *,
    in_channels: int = 1,
    mutable: str | Callable[..., MutableModule[Any, Any]] = OneShotMutableOP,
) -> nn.Sequential:
    """A supernet of 4^4 = 256 architectures for small images; made of torch's layers and `OneShotMutableOP` alone.

    `stem` (8 channels), `block0`, `block1`, `reduce` (half the size, 16 channels), `block2`, `block3`, `head`. Every
    block is `skip`, `maxpool`, `separable` or `conv3x3`, in this order: `0003` has one conv3x3, in `block3`.

    Args:
        num_classes, in_channels: of the images.
        mutable: what makes a block of a dict of candidates: `OneShotMutableOP`, `DiffMutableOP`, `OneHotMutableOP`;
            or its name, as a config gives it.

    Example:
        >>> from mutorch.mutators import Mutator
        >>> Mutator(chain_net()).space
        SearchSpace(4 decisions, 256 architectures)
    """
    block = (
        (lambda candidates: MODELS.build({"type": mutable, "candidates": candidates}))
        if isinstance(mutable, str)
        else mutable
    )
    reduce = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(
        OrderedDict(
            stem=_conv3x3(in_channels, 8),
            block0=block(_candidates(8)),
            block1=block(_candidates(8)),
            reduce=reduce,
            block2=block(_candidates(16)),
            block3=block(_candidates(16)),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes)),
        )
    )


ChainNet = chain_net
"""The name for configs: `dict(type='ChainNet')`. A function, so that an exported model has torch's classes only."""


def _candidates(channels: int) -> dict[str, nn.Module]:
    separable = nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )
    return {
        "skip": nn.Identity(),
        "maxpool": nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.BatchNorm2d(channels)),
        "separable": separable,
        "conv3x3": _conv3x3(channels, channels),
    }


def _conv3x3(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )
