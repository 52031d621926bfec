"""Activation, convolution and norm, in this order: the layers of DARTS and NAS-Bench-201."""

from collections import OrderedDict

from torch import nn

from .conv_norm_act import BATCH_NORM, RELU, Config, build_activation, build_norm


def act_conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    dilation: int = 1,
    separable: bool = False,
    norm_cfg: Config | None = BATCH_NORM,
    act_cfg: Config = RELU,
) -> nn.Sequential:
    """Children `activate`, `conv`, `bn`, keeping the size at stride 1; with `separable` a depthwise `conv` and `pointwise`.

    The activation never works in place, whatever `act_cfg` says: several operations read one input.

    Args:
        norm_cfg, act_cfg: see `conv_norm_act`.

    Example:
        >>> layers = act_conv_norm(8, 16, 3, separable=True)
        >>> [name for name, _ in layers.named_children()]
        ['activate', 'conv', 'pointwise', 'bn']
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(activate=build_shared_activation(act_cfg))
    bias = norm_cfg is None
    layers["conv"] = nn.Conv2d(
        in_channels,
        in_channels if separable else out_channels,
        kernel_size,
        stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=in_channels if separable else 1,
        bias=bias and not separable,
    )
    if separable:
        layers["pointwise"] = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
    if norm_cfg is not None:
        name, norm = build_norm(norm_cfg, out_channels)
        layers[name] = norm
    return nn.Sequential(layers)


def build_shared_activation(act_cfg: Config) -> nn.Module:
    """The activation of a config, leaving its input as it is."""
    activation = build_activation(act_cfg)
    if getattr(activation, "inplace", False):
        vars(activation)["inplace"] = False
    return activation
