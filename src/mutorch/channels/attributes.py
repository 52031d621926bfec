"""Integer attributes that follow sizes: what the forward read, and what torch's own modules say of their tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules import batchnorm, conv, instancenorm

from .atoms import Ids
from .observer import Observer

Components = tuple[Ids, ...]
"""A dimension in free atoms, one array for each component."""


@dataclass(frozen=True, slots=True)
class TensorDim:
    """One dimension of a parameter or buffer.

    Attributes:
        module: path of the module that holds it (the first, where it is shared).
        name: its name in that module.
    """

    module: str
    name: str
    dim: int
    size: int

    @property
    def path(self) -> str:
        """The name in `named_parameters`."""
        return f"{self.module}.{self.name}".lstrip(".")


@dataclass(frozen=True, slots=True)
class SizeRule:
    """An integer attribute that follows sizes: `factor` times the product of the counts of dimensions."""

    module: nn.Module
    attribute: str
    index: int | None
    factor: int
    dims: tuple[tuple[Components, int], ...]


_OF_CLASS: list[tuple[type, dict[str, tuple[str, int]]]] = [
    (nn.Linear, {"out_features": ("weight", 0), "in_features": ("weight", 1)}),
    (nn.Bilinear, {"out_features": ("weight", 0), "in1_features": ("weight", 1), "in2_features": ("weight", 2)}),
    (nn.Embedding, {"embedding_dim": ("weight", 1)}),
    (nn.GroupNorm, {"num_channels": ("weight", 0)}),
    (nn.PReLU, {"num_parameters": ("weight", 0)}),
    (nn.RNNBase, {"input_size": ("weight_ih_l0", 1), "hidden_size": ("weight_hh_l0", 1)}),
    (batchnorm._NormBase, {"num_features": ("running_mean", 0)}),
    (batchnorm._NormBase, {"num_features": ("weight", 0)}),
    (instancenorm._InstanceNorm, {"num_features": ("weight", 0)}),
]
"""Attributes of torch's own modules that name a size of a tensor; their forwards do not read all of them."""


def find_sizes(model: nn.Module, observer: Observer, dims: Mapping[TensorDim, Components]) -> list[SizeRule]:
    """Every attribute that follows.

    Args:
        dims: the dimensions that something may be removed from.
    """
    finder = _Finder(model, observer, dims)
    for bound in observer.bound:
        source = bound.attribute
        components = tuple(observer.algebra.resolve(bound.dim))
        finder.add(source.module, source.name, source.index, 1, [(components, bound.size)])
    for path, module in model.named_modules():
        for kind, table in _OF_CLASS:
            for attribute, (tensor, dim) in table.items() if isinstance(module, kind) else ():
                found = finder.dimension(path, tensor, dim)
                if found is not None and isinstance(vars(module).get(attribute), int):
                    finder.add(module, attribute, None, 1, [found])
        if isinstance(module, conv._ConvNd):
            finder.add_convolution(path, module)
    return list(finder.rules.values())


class _Finder:
    """The first rule for an attribute counts: what the forward read says more than what its class says."""

    def __init__(self, model: nn.Module, observer: Observer, dims: Mapping[TensorDim, Components]) -> None:
        self.rules: dict[tuple[int, str, int | None], SizeRule] = {}
        self._shared = observer.shared_names(model)
        self._by_tensor = {
            (place.module, place.name, place.dim): (components, place.size) for place, components in dims.items()
        }

    def dimension(self, path: str, tensor: str, dim: int) -> tuple[Components, int] | None:
        """A dimension of a tensor of a module, wherever the tensor stands first; `None` where nothing may go."""
        return self._by_tensor.get((*self._shared.get((path, tensor), (path, tensor)), dim))

    def add(
        self,
        module: nn.Module,
        name: str,
        index: int | None,
        factor: int,
        dims: Sequence[tuple[Components, int]],
    ) -> None:
        """Let an attribute be `factor` times the product of the counts of dimensions."""
        free = tuple((components, size) for components, size in dims if components)
        if free:
            self.rules.setdefault((id(module), name, index), SizeRule(module, name, index, factor, free))

    def add_convolution(self, path: str, module: conv._ConvNd) -> None:
        """`out_channels` is a size of the weight; `in_channels` of a grouped one is that of a group times the groups."""
        first, second = (self.dimension(path, "weight", dim) for dim in (0, 1))
        groups = self.rules.get((id(module), "groups", None))
        count: Sequence[tuple[Components, int]] = groups.dims if groups is not None else ()
        whole, part = ("in_channels", "out_channels") if module.transposed else ("out_channels", "in_channels")
        if first is not None:
            self.add(module, whole, None, 1, [first])
        rest = 1 if groups is not None else module.groups
        if second is not None:
            self.add(module, part, None, rest, [second, *count])
        elif count:
            self.add(module, part, None, int(module.weight.shape[1]) * rest, count)
