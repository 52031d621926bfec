"""The second classifier of DARTS, which helps to train deep networks and is left out afterwards."""

from collections import OrderedDict

from torch import nn

from .conv_norm_act import BATCH_NORM, Config, build_norm


class DartsAuxiliary(nn.Sequential):
    """A feature in the middle, 8x8 on CIFAR and 7x7 on ImageNet, to (N, out_channels, 1, 1).

    Activation, average pool of 5, 1x1 convolution to `middle_channels`, 2x2 convolution (as in NASNet, arXiv 1707.07012).

    Args:
        stride: of the pool; 3 for 8x8, 2 for 7x7.
        last_norm: whether a norm follows the second convolution; DARTS has none there on ImageNet.

    Example:
        >>> import torch
        >>> DartsAuxiliary(576, 128, 768)(torch.ones(2, 576, 8, 8)).shape
        torch.Size([2, 768, 1, 1])
    """

    def __init__(
        self,
        in_channels: int,
        middle_channels: int,
        out_channels: int,
        *,
        stride: int = 3,
        last_norm: bool = True,
        norm_cfg: Config | None = BATCH_NORM,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["activate0"] = nn.ReLU()
        layers["pool"] = nn.AvgPool2d(5, stride, count_include_pad=False)
        layers["conv1"] = nn.Conv2d(in_channels, middle_channels, 1, bias=norm_cfg is None)
        if norm_cfg is not None:
            layers["bn1"] = build_norm(norm_cfg, middle_channels)[1]
        layers["activate1"] = nn.ReLU()
        layers["conv2"] = nn.Conv2d(middle_channels, out_channels, 2, bias=norm_cfg is None)
        if norm_cfg is not None and last_norm:
            layers["bn2"] = build_norm(norm_cfg, out_channels)[1]
        layers["activate2"] = nn.ReLU()
        super().__init__(layers)
