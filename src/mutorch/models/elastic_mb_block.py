"""Inverted residuals whose widths, kernel and expansion are decided by mutables."""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mutorch.mutables import BaseMutableChannel, DerivedMutable, OneShotMutableValue, SimpleMutableChannel
from mutorch.ops import DynamicConv2d, DynamicOp, DynamicSequential

from .conv_norm_act import Config
from .mb_block import MBBlock
from .pooled_shortcut import PooledShortcut

Width = BaseMutableChannel | DerivedMutable
"""Channels of which the first so many are active."""
Number = int | OneShotMutableValue
"""A kernel size, a ratio or a depth: decided, or to be searched."""
SE_RATIO, SE_DIVISOR = 4, 8


def elastic_mb_block(
    in_width: Width,
    out_width: Width,
    kernel_size: Number,
    expand_ratio: Number,
    stride: int = 1,
    *,
    with_se: bool = False,
    conv_cfg: Config,
    norm_cfg: Config,
    act_cfg: Config,
    with_attentive_shortcut: bool = False,
    with_cp: bool = False,
) -> MBBlock:
    """An `MBBlock` as large as any choice needs it, which computes with what is chosen.

    The middle has `in_width * expand_ratio` channels, the squeeze a quarter of these, made divisible by 8. The input is
    added where it has the output's shape at all choices, or always with `with_attentive_shortcut`.

    Args:
        in_width, out_width: a mutable of channels; `SimpleMutableChannel(n)` for n channels that stay.
        kernel_size, expand_ratio: a number, or a mutable.
        conv_cfg, norm_cfg: of dynamic operations, e.g. `dict(type="BigNasConv2d")` and `dict(type="DynamicBatchNorm2d")`.
        act_cfg, with_cp: see `MBBlock`.

    Example:
        >>> import torch
        >>> from mutorch.mutables import OneShotMutableChannel
        >>> width, kernel = OneShotMutableChannel(16, [8, 16]), OneShotMutableValue([3, 5])
        >>> cfgs = dict(conv_cfg=dict(type="BigNasConv2d"), norm_cfg=dict(type="DynamicBatchNorm2d"))
        >>> block = elastic_mb_block(SimpleMutableChannel(8), width, kernel, 4, act_cfg=dict(type="Swish"), **cfgs)
        >>> width.current_choice, kernel.current_choice = 8, 3
        >>> block(torch.ones(1, 8, 4, 4)).shape, block.depthwise_conv.conv.weight.shape
        (torch.Size([1, 8, 4, 4]), torch.Size([32, 1, 3, 3]))
    """
    block = MBBlock(
        in_width.num_channels,
        out_width.num_channels,
        largest(kernel_size),
        largest(expand_ratio),
        stride,
        se_cfg=_se_cfg(conv_cfg) if with_se else None,
        conv_cfg=conv_cfg,
        norm_cfg=norm_cfg,
        act_cfg=act_cfg,
        with_attentive_shortcut=with_attentive_shortcut,
        with_cp=with_cp,
    )
    middle = in_width * expand_ratio
    if block.expand_conv is not None:
        follow_(block.expand_conv, in_width, middle)
    follow_(block.depthwise_conv, middle, middle, kernel_size)
    if block.se is not None:
        squeeze = middle.derive_divide_mutable(SE_RATIO, SE_DIVISOR)
        follow_(block.se.conv1, middle, squeeze)
        follow_(block.se.conv2, squeeze, middle)
    follow_(block.linear_conv, middle, out_width)
    if block.shortcut is not None:
        _project_where_needed_(block.shortcut, in_width, out_width)
    block.with_res_shortcut = block.with_res_shortcut and _always_equal(in_width, out_width)
    return block


def follow_(layers: nn.Sequential, in_width: Width | None, out_width: Width, kernel_size: Number = 0) -> None:
    """Let the convolution and the norm of a `conv_norm_act` follow mutables; without an `in_width`, all inputs stay."""
    for layer in layers:
        if isinstance(layer, DynamicConv2d):
            if in_width is not None:
                layer.register_mutable_attr("in_channels", in_width)
            layer.register_mutable_attr("out_channels", out_width)
            if isinstance(kernel_size, OneShotMutableValue):
                layer.register_mutable_attr("kernel_size", kernel_size)
        elif isinstance(layer, DynamicOp):
            layer.register_mutable_attr("num_features", out_width)


def largest(number: Number) -> Any:
    """A number, or the largest that a mutable may choose."""
    return number.max_choice if isinstance(number, OneShotMutableValue) else number


class _Projection(DynamicSequential):
    """A convolution that runs where widths differ. With masks, tensors have all channels: where it does not run, zeros are added."""

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = super().forward(input)
        missing = self[0].weight.shape[0] - out.shape[1]
        return F.pad(out, (0, 0, 0, 0, 0, missing)) if missing else out  # taken away, if negative


@dataclass(eq=False)
class _Differ:
    """1 where two widths differ now, else 0."""

    one: Width
    other: Width

    def __call__(self) -> int:
        return int(self.one.activated_channels != self.other.activated_channels)


def _project_where_needed_(shortcut: PooledShortcut, in_width: Width, out_width: Width) -> None:
    """Let a shortcut have its convolution where the active widths differ, and only there."""
    if _always_equal(in_width, out_width):
        return
    conv = DynamicConv2d(in_width.num_channels, out_width.num_channels, 1, bias=False)
    conv.register_mutable_attr("in_channels", in_width)
    conv.register_mutable_attr("out_channels", out_width)
    shortcut.project = project = _Projection(conv)
    project.register_mutable_attr("depth", DerivedMutable(_Differ(in_width, out_width)))


def _always_equal(in_width: Width, out_width: Width) -> bool:
    same = in_width.num_channels == out_width.num_channels
    kept = isinstance(in_width, SimpleMutableChannel) and isinstance(out_width, SimpleMutableChannel)
    return in_width is out_width or (same and kept)


def _se_cfg(conv_cfg: Config) -> dict[str, Any]:
    return {"ratio": SE_RATIO, "conv_cfg": conv_cfg, "act_cfg": ({"type": "ReLU"}, {"type": "HSigmoid"})}
