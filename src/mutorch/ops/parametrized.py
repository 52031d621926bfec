"""A layer of any class whose arguments are searched for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mutorch.errors import ChoiceError
from mutorch.mutables.base import HELD
from mutorch.mutables.held import HeldMutable

from .arguments import Arguments, holds_mutables
from .blueprint import Part, positions
from .dynamic import Dims, DynamicState, FollowedSize, Mode, cut, make_dynamic_
from .extent import Extent, Selection
from .twins import Twins


def layer(cls: Callable[..., nn.Module], /, *args: Any, **kwargs: Any) -> Any:
    """The module `cls(*args, **kwargs)`, where arguments may be mutables: it is as they say, whenever it is called.

    It is built once, as large as any choice needs, and computes with the part that belongs to the current choices: the
    first channels, and the middle of a kernel. It is an instance of `cls`; parameters keep their names and stay whole, so
    that weights of the largest layer load. `export` leaves what `cls` builds from the chosen arguments, with these weights.
    Without a mutable among the arguments, it is what `cls` builds.

    A mutable that stands nowhere else in the model is found by `Mutator` all the same; without a label its decision is
    called by the path of the layer and the name of the argument, such as `conv.out_channels`.

    Args:
        cls: any module class. Forward must compute with its attributes and tensors as they are.
        args, kwargs: what it is built with; mutables, and expressions of them, also inside tuples, lists and dicts.

    Errors:
        ChoiceError: arguments that `cls` cannot be built from at any choice, or whose layers are no parts of one. Choices
            that build nothing are an error of the `Mutator` of the model, unless a `Require` rules them out: with the arguments
            and the cause.

    Example:
        >>> from mutorch.mutables import ValueChoice
        >>> kernel = ValueChoice([3, 5], label="kernel")
        >>> conv = layer(nn.Conv2d, 3, 8, kernel, padding=kernel // 2)
        >>> conv.kernel_size, conv.padding, conv.weight.shape
        ((3, 3), (1, 1), torch.Size([8, 3, 3, 3]))
        >>> kernel.current_choice = 5
        >>> conv.kernel_size, conv.padding, isinstance(conv, nn.Conv2d)
        ((5, 5), (2, 2), True)
    """
    if not holds_mutables(args) and not holds_mutables(kwargs):
        return cls(*args, **kwargs)
    twins = Twins(cls, Arguments(cls, args, kwargs))
    largest = twins.build_largest()
    for path, module in list(largest.named_modules()):
        if path in twins.whole and (twins.attributes[path] or twins.dims[path]):
            make_dynamic_(module, _state(twins, path, module))
    held = [HeldMutable(mutable, name) for name, mutable in twins.arguments.mutables.items()]
    largest.__dict__[HELD] = [*vars(largest).get(HELD, ()), *held]
    return largest


class TwinExtent(Extent):
    """The part of a dimension that is as long as the same dimension of the twin.

    Attributes:
        twins: the layers at each choice.
    """

    def __init__(self, twins: Twins, path: str, tensor: str, dim: int) -> None:
        part = twins.whole[path]
        super().__init__((part.shapes[tensor] or ())[dim], (), ())
        self.twins, self.path, self.tensor, self.dim = twins, path, tensor, dim
        self.middle = tensor in part.kernels and dim >= 2
        self.pieces = part.stacked.get(tensor, 1) if dim == 0 else 1

    def count(self) -> int:
        """How many positions are active now."""
        shape = self.twins.now()[self.path].shapes[self.tensor]
        return self.size if shape is None else shape[self.dim]

    def take(self, tensor: Tensor, dim: int) -> Tensor:
        """The active part of `tensor` along `dim`."""
        if not self.middle:
            return super().take(tensor, dim)
        count = self.count()
        return tensor if count == self.size else tensor.narrow(dim, self.size // 2 - count // 2, count)

    def alive(self) -> NDArray[np.bool_]:
        """Which positions are active now."""
        alive = np.zeros(self.size, dtype=np.bool_)
        alive[list(positions(self.size, self.count(), pieces=self.pieces, middle=self.middle))] = True
        return alive

    def _selected(self) -> Selection:
        count = self.count()
        if count == self.size:
            return None
        if self.middle or self.pieces > 1:
            places = list(positions(self.size, count, pieces=self.pieces, middle=self.middle))
            return torch.tensor(places, device="cpu")  # it may be read where new tensors are on the meta device
        return count


@dataclass(frozen=True, slots=True)
class TwinAttribute(FollowedSize):
    """An attribute that is the twin's."""

    twins: Any = None
    path: str = ""
    name: str = ""

    def value(self) -> Any:
        """What the twin has now."""
        return self.twins.now()[self.path].attributes[self.name]


class _Optional:
    """A tensor that some choices do without."""

    def __init__(self, twins: Twins, path: str) -> None:
        self.twins, self.path = twins, path

    def read(self, name: str, whole: Tensor, dims: Dims, mode: Mode) -> Any:
        """Its active part; `None` where there is none."""
        return None if self.twins.now()[self.path].shapes.get(name) is None else cut(whole, dims)


def _state(twins: Twins, path: str, module: nn.Module) -> DynamicState:
    """What of one module follows the twins."""
    state = DynamicState(twins=twins)
    part: Part = twins.whole[path]
    for name, dims in twins.dims[path].items():
        optional = dims is None
        every = tuple(range(len(part.shapes[name] or ()))) if dims is None else dims
        state.tensors[name] = tuple((dim, TwinExtent(twins, path, name, dim)) for dim in every)
        if optional:
            state.rules[name] = _Optional(twins, path)
    for name in sorted(twins.attributes[path]):
        if isinstance(getattr(type(module), name, None), property):
            raise ChoiceError(f"{type(module).__name__} has a property {name!r} over an attribute of the same name")
        state.sizes[name] = (TwinAttribute((), twins=twins, path=path, name=name),)
    return state
