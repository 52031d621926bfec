"""The block of MobileNetV2 and V3, with kernel size and expansion to choose."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from mutorch.errors import ChoiceError, nearest
from mutorch.utils import checkpointed

from .conv_norm_act import BATCH_NORM, RELU, Config, conv_norm_act
from .drop_path import DropPath
from .pooled_shortcut import PooledShortcut
from .se_layer import SELayer

_STRIDES = (1, 2)


class MBBlock(nn.Module):
    """An inverted residual (arXiv 1801.04381): 1x1 up to `in_channels * expand_ratio`, depthwise, 1x1 down.

    There is no first convolution (`expand_conv`) where the width stays, and a sum with the input where its shape is
    that of the output, or always with `with_attentive_shortcut`.

    Args:
        se_cfg: arguments of `SELayer` on the expanded channels, e.g. `dict(ratio=4)`; `None` for none.
        conv_cfg, norm_cfg, act_cfg: see `conv_norm_act`.
        drop_path_rate: how often the residual branch is left out in training.
        with_attentive_shortcut: add the input in any case, brought to the output's shape by a `PooledShortcut`.
        with_cp: compute the inside again during backward instead of keeping it.

    Errors:
        ChoiceError: a stride other than 1 and 2.
        TypeError: a drop_path_rate that is no float.

    Example:
        >>> sum(p.numel() for p in MBBlock(32, 56, kernel_size=5, expand_ratio=3, stride=2).parameters())
        11344
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        expand_ratio: float,
        stride: int = 1,
        *,
        se_cfg: dict[str, Any] | None = None,
        conv_cfg: Config | None = None,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config | None = RELU,
        drop_path_rate: float = 0.0,
        with_attentive_shortcut: bool = False,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        if stride not in _STRIDES:
            raise ChoiceError(f"MBBlock has no stride {stride!r}; {nearest(stride, _STRIDES)}")
        layer = partial(conv_norm_act, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        middle = int(in_channels * expand_ratio)
        self.expand_conv = layer(in_channels, middle, 1, act_cfg=act_cfg) if middle != in_channels else None
        self.depthwise_conv = layer(middle, middle, kernel_size, stride, groups=middle, act_cfg=act_cfg)
        self.se = SELayer(middle, **se_cfg) if se_cfg is not None else None
        self.linear_conv = layer(middle, out_channels, 1, act_cfg=None)
        self.drop_path = DropPath(drop_path_rate)
        self.shortcut = (
            PooledShortcut(in_channels, out_channels, stride, conv_cfg=conv_cfg) if with_attentive_shortcut else None
        )
        self.with_res_shortcut = stride == 1 and in_channels == out_channels and not with_attentive_shortcut
        self.with_cp = with_cp

    @property
    def drop_path_rate(self) -> float:
        """How often the residual branch is left out in training; may change at any time."""
        return self.drop_path.rate

    @drop_path_rate.setter
    def drop_path_rate(self, rate: float) -> None:
        self.drop_path.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return checkpointed(self, self._forward, x) if self.with_cp else self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        out: Tensor = x if self.expand_conv is None else self.expand_conv(x)
        out = self.depthwise_conv(out)
        if self.se is not None:
            out = self.se(out)
        out = self.linear_conv(out)
        if self.shortcut is not None:
            around: Tensor = self.shortcut(x) + self.drop_path(out)
            return around
        return x + self.drop_path(out) if self.with_res_shortcut else out
