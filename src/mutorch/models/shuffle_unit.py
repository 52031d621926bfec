"""The blocks of ShuffleNetV2, with a kernel size to choose."""

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from mutorch.errors import ChoiceError, nearest
from mutorch.utils import checkpointed

from .conv_norm_act import BATCH_NORM, RELU, Config, conv_norm_act

_KERNEL_SIZES = (3, 5, 7)


class ShuffleUnit(nn.Module):
    """The frame of the ShuffleNetV2 blocks (arXiv 1807.11164): two branches, concatenated and shuffled.

    At stride 1 half of the channels pass by and half go through `branch2`. Otherwise both branches see all channels, and
    `branch1` is a depthwise and a 1x1 convolution.
    """

    branch1: nn.Sequential | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        branch2: nn.Sequential,
        *,
        conv_cfg: Config | None,
        norm_cfg: Config | None,
        act_cfg: Config | None,
        with_cp: bool,
    ) -> None:
        super().__init__()
        if stride == 1:
            self.branch1 = None
        else:
            layer = partial(conv_norm_act, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
            self.branch1 = nn.Sequential(
                layer(in_channels, in_channels, kernel_size, stride, groups=in_channels, act_cfg=None),
                layer(in_channels, out_channels // 2, 1, act_cfg=act_cfg),
            )
        self.branch2 = branch2
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        return checkpointed(self, self._forward, x) if self.with_cp else self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        if self.branch1 is None:
            passing, through = x.chunk(2, dim=1)
        else:
            passing, through = self.branch1(x), x
        joined = torch.cat((passing, self.branch2(through)), dim=1)
        batch, channels, height, width = joined.shape
        return joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).flatten(1, 2)


class ShuffleBlock(ShuffleUnit):
    """A ShuffleNetV2 block whose depthwise convolution has kernel size 3, 5 or 7 (seed 000).

    Args:
        conv_cfg, norm_cfg, act_cfg: see `conv_norm_act`.
        with_cp: compute the inside again during backward instead of keeping it.

    Errors:
        ChoiceError: another kernel size, odd `out_channels`, or stride 1 with `in_channels` other than `out_channels`.

    Example:
        >>> ShuffleBlock(16, 64, kernel_size=5, stride=2)(torch.ones(1, 16, 8, 8)).shape
        torch.Size([1, 64, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        conv_cfg: Config | None = None,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config | None = RELU,
        with_cp: bool = False,
    ) -> None:
        if kernel_size not in _KERNEL_SIZES:
            raise ChoiceError(f"ShuffleBlock has no kernel_size {kernel_size!r}; {nearest(kernel_size, _KERNEL_SIZES)}")
        enters, half = _branch_channels("ShuffleBlock", in_channels, out_channels, stride)
        layer = partial(conv_norm_act, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        branch2 = nn.Sequential(
            layer(enters, half, 1, act_cfg=act_cfg),
            layer(half, half, kernel_size, stride, groups=half, act_cfg=None),
            layer(half, half, 1, act_cfg=act_cfg),
        )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            branch2,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            with_cp=with_cp,
        )


class ShuffleXception(ShuffleUnit):
    """A ShuffleNetV2 block with three depthwise separable convolutions of kernel size 3 (seed 000).

    Arguments and errors are those of `ShuffleBlock`, without the kernel size.

    Example:
        >>> ShuffleXception(64, 64)(torch.ones(1, 64, 8, 8)).shape
        torch.Size([1, 64, 8, 8])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        conv_cfg: Config | None = None,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config | None = RELU,
        with_cp: bool = False,
    ) -> None:
        enters, half = _branch_channels("ShuffleXception", in_channels, out_channels, stride)
        layer = partial(conv_norm_act, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        branch2 = nn.Sequential(
            *(
                nn.Sequential(
                    OrderedDict(
                        depthwise_conv=layer(channels, channels, 3, step, groups=channels, act_cfg=None),
                        pointwise_conv=layer(channels, half, 1, act_cfg=act_cfg),
                    )
                )
                for channels, step in ((enters, stride), (half, 1), (half, 1))
            )
        )
        super().__init__(
            in_channels,
            out_channels,
            3,
            stride,
            branch2,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            with_cp=with_cp,
        )


def _branch_channels(name: str, in_channels: int, out_channels: int, stride: int) -> tuple[int, int]:
    """The channels that enter and leave `branch2`."""
    if out_channels % 2:
        raise ChoiceError(f"{name} joins two halves; out_channels must be even, got {out_channels}")
    if stride == 1 and in_channels != out_channels:
        raise ChoiceError(
            f"{name} at stride 1 keeps its channels; in_channels must be {out_channels} as out_channels, "
            f"got {in_channels}"
        )
    return (out_channels // 2 if stride == 1 else in_channels), out_channels // 2
