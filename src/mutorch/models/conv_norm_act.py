"""Convolution, normalization and activation from the small configs that candidates carry."""

from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutorch.errors import ConfigError
from mutorch.registry import MODELS

Config = Mapping[str, Any]
"""A dict with `type` (a name of the registry, of torch.nn or of `SHORT_NAMES`, or a class) and its arguments."""

BATCH_NORM: Config = MappingProxyType({"type": "BN"})
RELU: Config = MappingProxyType({"type": "ReLU"})
RELU6: Config = MappingProxyType({"type": "ReLU6"})
SIGMOID: Config = MappingProxyType({"type": "Sigmoid"})

SHORT_NAMES: Mapping[object, type[nn.Module]] = MappingProxyType(
    {
        "BN": nn.BatchNorm2d,
        "BN2d": nn.BatchNorm2d,
        "SyncBN": nn.SyncBatchNorm,
        "GN": nn.GroupNorm,
        "IN": nn.InstanceNorm2d,
        "Swish": nn.SiLU,
        "HSwish": nn.Hardswish,
        "HSigmoid": nn.Hardsigmoid,
    }
)
"""Names that older configs use for torch's layers."""


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    *,
    groups: int = 1,
    conv_cfg: Config | None = None,
    norm_cfg: Config | None = BATCH_NORM,
    act_cfg: Config | None = RELU,
) -> nn.Sequential:
    """A convolution that keeps the size at stride 1, then norm and activation: children `conv`, `bn`, `activate`.

    Args:
        conv_cfg: `None` is `nn.Conv2d`. The bias is left out where a norm follows.
        norm_cfg: `dict(type='BN')`, `dict(type='BN', affine=False)`, 'SyncBN', 'GN' with `num_groups`, ...; `None` for
            none. The child is called `norm` where it is no batch norm. `requires_grad=False` freezes its parameters.
        act_cfg: `dict(type='ReLU')`, 'ReLU6', 'Swish', 'HSwish', ...; `None` for none.

    Example:
        >>> layers = conv_norm_act(8, 16, 3, groups=8, act_cfg=dict(type="Swish"))
        >>> {name: type(layer).__name__ for name, layer in layers.named_children()}
        {'conv': 'Conv2d', 'bn': 'BatchNorm2d', 'activate': 'SiLU'}
    """
    conv = {"bias": norm_cfg is None, **_with_class(conv_cfg or {"type": nn.Conv2d})}
    conv.update(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
    conv.update(stride=stride, padding=kernel_size // 2, groups=groups)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=MODELS.build(conv))
    if norm_cfg is not None:
        name, norm = build_norm(norm_cfg, out_channels)
        layers[name] = norm
    if act_cfg is not None:
        layers["activate"] = build_activation(act_cfg)
    return nn.Sequential(layers)


def build_activation(act_cfg: Config) -> nn.Module:
    """The activation that a config like `dict(type='Swish')` describes.

    Example:
        >>> build_activation(dict(type="Swish"))
        SiLU()
    """
    activation: nn.Module = MODELS.build(_with_class(act_cfg))
    return activation


def build_norm(norm_cfg: Config, channels: int) -> tuple[str, nn.Module]:
    """The norm that a config like `dict(type='BN')` describes, and its name as a child: `bn`, or `norm` for others.

    Example:
        >>> name, norm = build_norm(dict(type="GN", num_groups=2), 8)
        >>> name, type(norm).__name__
        ('norm', 'GroupNorm')
    """
    config = _with_class(norm_cfg)
    requires_grad = config.pop("requires_grad", True)
    config["num_channels" if config["type"] is nn.GroupNorm else "num_features"] = channels
    norm: nn.Module = MODELS.build(config)
    for parameter in norm.parameters():
        parameter.requires_grad_(requires_grad)
    return ("bn" if isinstance(norm, _BatchNorm) else "norm"), norm


def _with_class(config: Config) -> dict[str, Any]:
    """A copy of `config`, its short name replaced by the class."""
    if not isinstance(config, Mapping) or "type" not in config:
        raise ConfigError(f"a layer is written dict(type='BN') or dict(type='ReLU'), got {config!r}")
    return {**config, "type": SHORT_NAMES.get(config["type"], config["type"])}
