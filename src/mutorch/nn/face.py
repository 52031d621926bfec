"""A layer class of torch that may be called with mutables."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from mutorch.ops.parametrized import layer

CONTAINERS = (
    nn.Module,
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.ParameterList,
    nn.ParameterDict,
    nn.DataParallel,
)
"""Classes whose arguments are no sizes; they are given as they are."""


class Face:
    """What stands for a layer class of torch: called, it gives `layer(cls, ...)`; in all else it is the class.

    No class itself: a subclass of it is one of the torch class, `isinstance` asks that, and it is equal to it as a key of a
    dict. What it builds is of the torch class, so that models pickle without it.

    Example:
        >>> import mutorch.nn as nn
        >>> class Mine(nn.Linear): pass
        >>> Mine.__mro__[1], isinstance(Mine(2, 2), nn.Linear), {nn.Linear: 1}[type(nn.Linear(2, 2))]
        (<class 'torch.nn.modules.linear.Linear'>, True, 1)
    """

    def __init__(self, torch_class: type[nn.Module]) -> None:
        self.torch_class = torch_class
        functools.update_wrapper(self, torch_class, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return layer(self.torch_class, *args, **kwargs)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type[nn.Module]]:
        return (self.torch_class,)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self.torch_class)

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(plain(subclass), self.torch_class)

    def __getattr__(self, name: str) -> Any:
        if name == "torch_class":  # not there yet: it is being copied
            raise AttributeError(name)
        return getattr(self.torch_class, name)

    def __eq__(self, other: object) -> bool:
        return plain(other) is self.torch_class

    def __hash__(self) -> int:
        return hash(self.torch_class)

    def __or__(self, other: Any) -> Any:
        return self.torch_class | plain(other)

    def __ror__(self, other: Any) -> Any:
        return plain(other) | self.torch_class

    def __reduce__(self) -> tuple[Any, ...]:
        return face, (self.torch_class,)

    def __repr__(self) -> str:
        return repr(self.torch_class)


def plain(value: Any) -> Any:
    """The class that a face stands for; anything else as it is."""
    return value.torch_class if isinstance(value, Face) else value


def face(value: Any) -> Any:
    """What stands for a name of torch: a layer class gets a face, one for ever; all else is given as it is.

    Example:
        >>> face(nn.Conv2d) is face(nn.Conv2d), face(nn.Module) is nn.Module
        (True, True)
    """
    is_layer = isinstance(value, type) and issubclass(value, nn.Module) and value not in CONTAINERS
    return _made(value) if is_layer else value


@functools.cache
def _made(torch_class: type[nn.Module]) -> Face:
    return Face(torch_class)
