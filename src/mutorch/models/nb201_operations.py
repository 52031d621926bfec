"""The operations of NAS-Bench-201 that DARTS does not have in this form (arXiv 2001.00326, section 2.1)."""

from torch import Tensor, nn

from .act_conv_norm import act_conv_norm
from .conv_norm_act import BATCH_NORM, RELU, Config


class NB201Conv(nn.Module):
    """ReLU, convolution, batch norm: `nor_conv_1x1` and `nor_conv_3x3` of NAS-Bench-201.

    Args:
        norm_cfg: `dict(type="BN", affine=False, track_running_stats=False)` while searching, as the benchmark's authors
            do; `dict(type="BN")` for the networks of the benchmark.

    Example:
        >>> sum(p.numel() for p in NB201Conv(16, 16, kernel_size=3).parameters())
        2336
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config = RELU,
    ) -> None:
        super().__init__()
        self.conv = act_conv_norm(in_channels, out_channels, kernel_size, stride, norm_cfg=norm_cfg, act_cfg=act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class NB201AvgPool(nn.Module):
    """3x3 average pooling in which padding does not count, without norm; another width is made by a 1x1 `NB201Conv` before.

    Example:
        >>> import torch
        >>> bool((NB201AvgPool(2, 2)(torch.ones(1, 2, 4, 4)) == 1).all())
        True
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, norm_cfg: Config | None = BATCH_NORM
    ) -> None:
        super().__init__()
        same = in_channels == out_channels
        self.preprocess = None if same else NB201Conv(in_channels, out_channels, 1, norm_cfg=norm_cfg)
        self.pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(x if self.preprocess is None else self.preprocess(x))
        return out
