"""Half the size without losing every other pixel."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mutorch.errors import ChoiceError

from .act_conv_norm import build_shared_activation
from .conv_norm_act import BATCH_NORM, RELU, Config, build_norm


class FactorizedReduce(nn.Module):
    """Activation, two 1x1 convolutions of stride 2 side by side, norm (arXiv 1806.09055, section A.1.1; NASNet).

    The second convolution reads the input shifted by one pixel; each gives half of the channels. Odd sizes are padded, so
    that (N, C, H, W) always becomes (N, out_channels, ceil(H / 2), ceil(W / 2)).

    Errors:
        ChoiceError: odd out_channels.

    Example:
        >>> FactorizedReduce(16, 32)(torch.ones(1, 16, 7, 7)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config = RELU,
    ) -> None:
        super().__init__()
        if out_channels % 2:
            raise ChoiceError(f"FactorizedReduce joins two halves; out_channels must be even, got {out_channels}")
        self.activate = build_shared_activation(act_cfg)
        self.conv1 = nn.Conv2d(in_channels, out_channels // 2, 1, 2, bias=norm_cfg is None)
        self.conv2 = nn.Conv2d(in_channels, out_channels // 2, 1, 2, bias=norm_cfg is None)
        self.bn = None if norm_cfg is None else build_norm(norm_cfg, out_channels)[1]

    def forward(self, x: Tensor) -> Tensor:
        x = self.activate(x)
        shifted = x[:, :, 1:, 1:]
        odd = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
        if any(odd):
            shifted = F.pad(shifted, odd)
        out = torch.cat([self.conv1(x), self.conv2(shifted)], dim=1)
        return out if self.bn is None else self.bn(out)
