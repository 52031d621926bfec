"""Squeeze and excitation."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.utils import make_divisible

from .conv_norm_act import RELU, SIGMOID, Config, conv_norm_act


class SELayer(nn.Module):
    """Channels weighted by what the whole image shows (arXiv 1709.01507); shapes stay.

    Args:
        ratio: the squeeze has `channels // ratio` channels, made divisible by 8.
        squeeze_channels: said directly instead.
        act_cfg: one activation for both convolutions, or the two of them.

    Example:
        >>> sum(p.numel() for p in SELayer(128, ratio=4).parameters())
        8352
    """

    def __init__(
        self,
        channels: int,
        *,
        ratio: int = 16,
        squeeze_channels: int | None = None,
        conv_cfg: Config | None = None,
        act_cfg: Config | Sequence[Config] = (RELU, SIGMOID),
    ) -> None:
        super().__init__()
        squeeze = make_divisible(channels // ratio, 8) if squeeze_channels is None else squeeze_channels
        acts = (act_cfg, act_cfg) if isinstance(act_cfg, Mapping) else tuple(act_cfg)
        if len(acts) != 2:
            raise ConfigError(f"act_cfg of SELayer is one activation or two, got {len(acts)}")
        self.global_avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv1 = conv_norm_act(channels, squeeze, 1, conv_cfg=conv_cfg, norm_cfg=None, act_cfg=acts[0])
        self.conv2 = conv_norm_act(squeeze, channels, 1, conv_cfg=conv_cfg, norm_cfg=None, act_cfg=acts[1])

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.conv2(self.conv1(self.global_avgpool(x)))
        return x * weight
