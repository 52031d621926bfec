"""Labels carried through a forward without learning: what a searchable model's observer learned is applied."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mutorch.channels.atoms import Atoms, Ids, distinct
from mutorch.channels.dims import Dim, DimAlgebra, LabelMismatchError, Labels
from mutorch.channels.observer import Observer
from mutorch.channels.python_calls import SHAPE_GETTER
from mutorch.channels.rules import apply_rule
from mutorch.channels.sizes import DimSize, TracedInt, TracedShape
from mutorch.errors import CostError

Attributes = Mapping[tuple[int, str, int | None], Dim]
"""The labels of the dimension that an integer attribute counts: by module (its id), name, and index in a tuple."""


class _Algebra(DimAlgebra):
    """Labels that are read, not learned: what meets has been found to agree when the net was made searchable."""

    def resolve(self, dim: Dim) -> list[Ids]:
        return distinct(list(dim))

    def unify(self, one: Dim, other: Dim, reason: str) -> Dim:
        return one or other


class Reader(Observer):
    """An observer that only labels what kernels give; `searchable` has learned everything else."""

    def __init__(self) -> None:
        super().__init__(Atoms(), checking=True)
        self.algebra = _Algebra(Atoms(), checking=True)
        self.asked: Labels = ()

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Label what a kernel gave.

        Errors:
            CostError: channels come where they cannot be followed, and where `searchable` did not see them.
        """
        self._kept.append((args, kwargs, out))  # no other tensor may get the id of one that has labels
        fused = _FUSED.get(str(func._overloadpacket))
        try:
            if fused is not None:
                fused(self, args, out)
            else:
                apply_rule(self, func, args, kwargs, out)
        except LabelMismatchError as error:
            raise CostError(
                f"channels cannot be followed through {func} in the forward that is counted: {error}"
            ) from None
        made = isinstance(out, Tensor) and out.dim() == len(self.asked)
        if made and not any(isinstance(x, Tensor) and any(self.labels(x)) for x in tree_leaves((args, kwargs))):
            self.set_labels(out, self.asked)

    @contextmanager
    def reading(self, model: nn.Module, attributes: Attributes) -> Iterator[None]:
        """Inside it, sizes of labelled tensors and these attributes know what they count."""
        with _traced(model, attributes), _Calls(self):
            yield


def _mkldnn_rnn(reader: Reader, args: tuple[Any, ...], out: Sequence[Tensor]) -> None:
    """One layer of a recurrent network: outputs of every step, and the last states."""
    steps, hidden = reader.labels(args[0])[:-1], reader.labels(args[2])[1]
    for tensor in out:
        if isinstance(tensor, Tensor) and tensor.dim() in (2, 3):
            reader.set_labels(tensor, (*steps[3 - tensor.dim() :], hidden))


_FUSED = {"aten.mkldnn_rnn_layer": _mkldnn_rnn}
"""Kernels that `searchable` does not see, as it observes what they are made of."""


@contextmanager
def _traced(model: nn.Module, attributes: Attributes) -> Iterator[None]:
    """Integer attributes that follow sizes know it."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if (id(module), name, None) in attributes:
                module.__dict__[name] = _sized(attributes[id(module), name, None], value)
            elif type(value) in (tuple, list):
                dims = [attributes.get((id(module), name, index), ()) for index in range(len(value))]
                if any(dims):
                    module.__dict__[name] = type(value)(map(_sized, dims, value))
    try:
        yield
    finally:
        for module in model.modules():
            for name, value in list(vars(module).items()):
                if isinstance(value, TracedInt):
                    module.__dict__[name] = int(value)
                elif type(value) in (tuple, list) and any(isinstance(item, TracedInt) for item in value):
                    module.__dict__[name] = type(value)(int(i) if isinstance(i, TracedInt) else i for i in value)


_FACTORIES = ("zeros", "ones", "empty", "full", "randn", "rand", "new_zeros", "new_ones", "new_empty", "new_full")


class _Calls(TorchFunctionMode):
    """Sizes that remember their dimensions, and labels for tensors that are made from such sizes."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.size or func == SHAPE_GETTER:
            return self._sizes(func(*args, **kwargs), *args, **kwargs)
        name = getattr(func, "__name__", "")
        if name not in _FACTORIES:
            return func(*args, **kwargs)
        given = kwargs["size"] if "size" in kwargs else args[1 if name.startswith("new_") else 0 :]
        if given and isinstance(given[0], tuple | list):
            given = given[0]
        labels = tuple(_label(value) for value in given if isinstance(value, int))
        self._reader.asked = labels if any(labels) else ()
        try:
            return func(*args, **kwargs)
        finally:
            self._reader.asked = ()

    def _sizes(self, sizes: Any, tensor: Tensor, dim: Any = None) -> Any:
        labels = self._reader.labels(tensor)
        if not any(labels) or type(sizes) not in (int, torch.Size):
            return sizes
        if isinstance(sizes, int):
            return _sized(labels[dim], sizes)
        return TracedShape(_sized(label, size) for label, size in zip(labels, sizes, strict=True))


def _label(value: Any) -> Dim:
    """The labels of the dimension whose size an integer is."""
    source = value.sources[0] if isinstance(value, TracedInt) and value.is_source else None
    return source.dim if isinstance(source, DimSize) else ()


def _sized(dim: Dim, size: int) -> int:
    """A size that remembers its dimension."""
    return TracedInt(size, (DimSize(dim, size),), is_source=True) if dim else size
