"""Where a module's parameters lie, and whether they learn."""

from collections.abc import Iterable

import torch
from torch import nn

from mutorch.errors import MutorchError


class NoParametersError(MutorchError, ValueError):
    """A module without parameters, asked for what only parameters know."""


def get_module_device(module: nn.Module) -> torch.device:
    """The device of the module's first parameter, always a `torch.device`.

    Example:
        >>> get_module_device(nn.Linear(2, 2))
        device(type='cpu')
    """
    first = next(module.parameters(), None)
    if first is None:
        raise NoParametersError(f"{type(module).__name__} has no parameters, so no device; pass the device yourself")
    return first.device


def set_requires_grad(nets: nn.Module | Iterable[nn.Module | None] | None, requires_grad: bool = False) -> None:
    """Sets `requires_grad` on every parameter of one module or of several; `None` is skipped.

    Example:
        >>> teacher = nn.Linear(2, 2)
        >>> set_requires_grad(teacher)
        >>> any(parameter.requires_grad for parameter in teacher.parameters())
        False
    """
    several = [nets] if nets is None or isinstance(nets, nn.Module) else nets
    for net in several:
        if net is not None:
            net.requires_grad_(requires_grad)


def has_weights(module: nn.Module) -> bool:
    """Whether a module has a kernel or a matrix; the scale of a norm is none. Skips, pools and zeros have not.

    Example:
        >>> has_weights(nn.Linear(2, 2)), has_weights(nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(2)))
        (True, False)
    """
    return any(parameter.ndim >= 2 for parameter in module.parameters())
