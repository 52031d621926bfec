"""The way around a block that changes the shape."""

import torch.nn.functional as F
from torch import Tensor, nn

from mutorch.registry import MODELS

from .conv_norm_act import Config


class PooledShortcut(nn.Module):
    """The input in the shape of the output: averaged over each stride, then a bare 1x1 convolution where channels change.

    AttentiveNAS (arXiv 2011.09011) adds it to every block. An odd side is padded with a zero at both ends.

    Args:
        conv_cfg: of the convolution; `None` is `nn.Conv2d`.

    Example:
        >>> import torch
        >>> shortcut = PooledShortcut(16, 24, stride=2)
        >>> shortcut(torch.ones(1, 16, 7, 8)).shape, len(PooledShortcut(16, 16).project)
        (torch.Size([1, 24, 4, 4]), 0)
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, *, conv_cfg: Config | None = None) -> None:
        super().__init__()
        self.stride = stride
        self.project = nn.Sequential()
        if in_channels != out_channels:
            self.project.append(pointwise(in_channels, out_channels, conv_cfg=conv_cfg))

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, padding=(x.shape[-2] % self.stride, x.shape[-1] % self.stride))
        projected: Tensor = self.project(x)
        return projected


def pointwise(in_channels: int, out_channels: int, *, conv_cfg: Config | None = None) -> nn.Module:
    """A 1x1 convolution without bias, of the class that `conv_cfg` names."""
    config = {"type": nn.Conv2d, **(conv_cfg or {}), "bias": False}
    conv: nn.Module = MODELS.build(
        {**config, "in_channels": in_channels, "out_channels": out_channels, "kernel_size": 1}
    )
    return conv
