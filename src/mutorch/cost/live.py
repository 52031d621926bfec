"""How much of a tensor is live, as a function of the decisions that cut it."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from mutorch.channels.atoms import ALWAYS, Atoms, Ids, distinct
from mutorch.channels.dims import Dim, DimAlgebra, Labels, LabelMismatchError
from mutorch.channels.observer import Observer
from mutorch.channels.python_calls import SHAPE_GETTER
from mutorch.channels.rules import apply_rule
from mutorch.channels.sizes import DimSize, TracedInt, TracedShape
from mutorch.errors import CostError
from mutorch.mutables.activity import as_mask
from mutorch.mutators import Mutator
from mutorch.ops.dynamic import FollowedSize, dynamic_modules
from mutorch.ops.extent import Extent

from .amount import Amount

Size = int | Amount


@dataclass(frozen=True, slots=True)
class Kept:
    """Which channels a decision keeps.

    Attributes:
        decision: its number.
        masks: a row of bools for each choice.
    """

    decision: int
    masks: NDArray[np.bool_]


def kept_channels(mutator: Mutator, names: Sequence[str]) -> dict[int, Kept]:
    """What the units of some decisions keep at each choice, by the id of the unit's channel mutable."""
    found: dict[int, Kept] = {}
    for name in names:
        number = mutator.space.names.index(name)
        for unit in mutator.search_groups[name]:
            before = unit.current_choice
            channel = unit.mutable_channel  # type: ignore[attr-defined]
            masks = []
            for choice in mutator.space[name].choices:
                unit.assign(choice)
                masks.append(as_mask(channel.active(), channel.num_channels).numpy().astype(np.bool_))
            unit.assign(before)
            found[id(channel)] = Kept(number, np.stack(masks))
    return found


class LiveSizes:
    """The live sizes of the tensors of one forward of a model that is `whole`, or `narrowed` to what only some units cut.

    Labels of parameters come from what the dynamic modules of the model follow, and are carried through the forward by the
    rules that `searchable` learned from. Each channel has a number, and 0 stands for what is always there.

    Args:
        model: with dynamic modules.
        kept: as `kept_channels` gives it; channels that are not in it keep what they keep now.
        narrow: whether the model is narrowed.
    """

    def __init__(self, model: nn.Module, kept: Mapping[int, Kept], *, narrow: bool = False) -> None:
        self.model = model
        self.kept = kept
        self.narrow = narrow
        self._reader = _Reader()
        self._channels: list[Any] = []
        self._first: dict[int, int] = {}
        self._of_extent: dict[int, Dim] = {}
        self._amounts: dict[Any, Size] = {}
        self._attributes: dict[tuple[int, str, int | None], Dim] = {}
        self._owner: Ids = np.zeros(1, dtype=np.int64)
        self._index: Ids = np.zeros(1, dtype=np.int64)
        self._label_model()

    # ---- labels ------------------------------------------------------------------------------------------------------

    def _label_model(self) -> None:
        for _, module, state in dynamic_modules(self.model):
            for name, extents in state.tensors.items():
                tensor = module._parameters.get(name)
                if tensor is None:
                    tensor = module._buffers.get(name)
                if tensor is not None:
                    followed = dict(extents)
                    labels = tuple(self._dim(followed[d]) if d in followed else () for d in range(tensor.dim()))
                    self._reader.know(tensor, labels)
            for name, sizes in state.sizes.items():
                for size in sizes:
                    self._attributes[id(module), name, size.index] = self._product(size)

    def _dim(self, extent: Extent) -> Dim:
        """The labels along a dimension."""
        if id(extent) not in self._of_extent:
            components = []
            for which, index in extent.components:
                ids = np.full(len(extent.channels) + 1, ALWAYS, dtype=np.int64)
                ids[:-1] = [self._number(channel) for channel in extent.channels]
                component = np.where(which >= 0, ids[which] + index, ALWAYS)
                components.append(component[extent.alive()] if self.narrow else component)
            self._of_extent[id(extent)] = tuple(components)
        return self._of_extent[id(extent)]

    def _number(self, channel: Any) -> int:
        """The number of a channel mutable's first channel."""
        if id(channel) not in self._first:
            self._first[id(channel)] = len(self._owner)
            count = int(channel.num_channels)
            self._owner = np.concatenate([self._owner, np.full(count, len(self._channels))])
            self._index = np.concatenate([self._index, np.arange(count)])
            self._channels.append(channel)
        return self._first[id(channel)]

    def _product(self, size: FollowedSize) -> Dim:
        dims = [self._dim(extent) for extent in size.extents]
        sizes = [extent.count() if self.narrow else extent.size for extent in size.extents]
        return self._reader.algebra.merge([*dims, ()], [*sizes, size.factor])

    # ---- a forward ---------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside it, the model's forward keeps labels where only sizes, as plain numbers, carry them."""
        with ExitStack() as stack:
            stack.enter_context(_traced(self.model, self._attributes))
            stack.enter_context(_Calls(self._reader))
            yield

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Label what a kernel gave."""
        self._reader.keep((args, kwargs, out))
        fused = _FUSED.get(str(func._overloadpacket))
        if fused is not None:
            fused(self._reader, args, out)
            return
        try:
            apply_rule(self._reader, func, args, kwargs, out)
        except LabelMismatchError as error:
            raise CostError(
                f"channels cannot be followed through {func} in the forward that is counted: {error}"
            ) from None

    def shape(self, tensor: Tensor) -> tuple[Size, ...]:
        """The live sizes of a tensor's dimensions; plain integers where nothing decides them."""
        labels = self._reader.labels(tensor)
        return tuple(self._size(dim, int(size)) for dim, size in zip(labels, tensor.shape, strict=True))

    def numel(self, tensor: Tensor) -> Size:
        """How many elements are live."""
        total: Size = 1
        for size in self.shape(tensor):
            total = total * size
        return total

    def evaluate(self, formula: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        """What a formula of flops says of the live shapes."""
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        if all(isinstance(size, int) for x in tensors for size in self.shape(x)):
            return formula(*args, **kwargs, out_val=out)
        # Torch passes shapes to most formulas, and says so by wrapping them; others take tensors.
        read = self.shape if hasattr(formula, "__wrapped__") else lambda x: _Shaped(self.shape(x))
        args, kwargs, out = tree_map_only(Tensor, read, (args, kwargs, out))
        try:
            return formula(*args, **kwargs, out_val=out)
        except (AssertionError, AttributeError, TypeError) as error:
            raise CostError(
                f"the formula of {getattr(formula, '__name__', formula)} fails on live shapes: {error}"
            ) from error

    def _size(self, dim: Dim, size: int) -> Size:
        if not dim:
            return size
        key = tuple(component.tobytes() for component in dim)
        if key not in self._amounts:
            self._amounts[key] = self._count(distinct(list(dim)), size)
        return self._amounts[key]

    def _count(self, components: list[Ids], size: int) -> Size:
        """How many positions are live, where each component's channel has to be."""
        if not components:
            return size
        columns, counts = np.unique(np.stack(components), axis=1, return_counts=True)
        owners = np.where(columns == ALWAYS, -1, self._owner[columns])
        total: Size = 0
        for pattern in np.unique(owners, axis=1).T:
            here = (owners == pattern[:, None]).all(axis=0)
            total = total + self._run(pattern, self._index[columns[:, here]], counts[here])
        return total

    def _run(self, owners: Ids, index: Ids, counts: Ids) -> Size:
        """As `_count`, where all positions are decided by the same channel mutables."""
        live: dict[int, NDArray[np.int64]] = defaultdict(lambda: np.ones((1, len(counts)), dtype=np.int64))
        weights = counts.astype(np.int64)
        for owner, places in zip(owners.tolist(), index, strict=True):
            if owner < 0:
                continue
            channel = self._channels[owner]
            kept = self.kept.get(id(channel))
            if kept is None:
                weights = weights * as_mask(channel.active(), channel.num_channels).numpy()[places]
            else:
                live[kept.decision] = live[kept.decision] * kept.masks[:, places]
        decisions = tuple(sorted(live))
        operands: list[Any] = []
        for axis, decision in enumerate(decisions):
            operands += [live[decision], [axis, len(decisions)]]
        table = np.einsum(weights, [len(decisions)], *operands, list(range(len(decisions))))
        return Amount({decisions: table}) if decisions else int(table)


class _Shaped:
    """What formulas read of a tensor."""

    is_nested = False

    def __init__(self, shape: tuple[Size, ...]) -> None:
        self.shape = shape
        self.ndim = len(shape)

    def dim(self) -> int:
        return self.ndim

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> Size:
        return math.prod(self.shape)  # type: ignore[arg-type]


class _Algebra(DimAlgebra):
    """Labels that are read, not learned: what meets has been found to agree when the net was made searchable."""

    def resolve(self, dim: Dim) -> list[Ids]:
        return distinct(list(dim))

    def unify(self, one: Dim, other: Dim, reason: str) -> Dim:
        return one or other


class _Reader(Observer):
    def __init__(self) -> None:
        super().__init__(Atoms(), checking=True)
        self.algebra = _Algebra(Atoms(), checking=True)

    def know(self, tensor: Tensor, labels: Labels) -> None:
        """Label a parameter or buffer."""
        self.set_labels(tensor, labels)

    def keep(self, held: Any) -> None:
        """Let no other tensor get the id of one that has labels."""
        self._kept.append(held)


def _mkldnn_rnn(reader: _Reader, args: tuple[Any, ...], out: Sequence[Tensor]) -> None:
    """One layer of a recurrent network: outputs of every step, and the last states."""
    steps, hidden = reader.labels(args[0])[:-1], reader.labels(args[2])[1]
    for tensor in out:
        if tensor.dim() in (2, 3):
            reader.set_labels(tensor, (*steps[3 - tensor.dim() :], hidden))


_FUSED = {"aten.mkldnn_rnn_layer": _mkldnn_rnn}
"""Kernels that `searchable` does not see, as it observes what they are made of."""


@contextmanager
def _traced(model: nn.Module, attributes: Mapping[tuple[int, str, int | None], Dim]) -> Iterator[None]:
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
    """Labels for tensors that the model makes from sizes of others."""

    def __init__(self, reader: _Reader) -> None:
        super().__init__()
        self._reader = reader

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is Tensor.size or func == SHAPE_GETTER:
            return self._sizes(out, *args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _FACTORIES and isinstance(out, Tensor):
            given = kwargs.get("size", args[1 if name.startswith("new_") else 0 :])
            if given and isinstance(given[0], tuple | list):
                given = given[0]
            labels = [_label(value) for value in given[: out.dim()]]
            if any(labels) and len(labels) == out.dim():
                self._reader.set_labels(out, tuple(labels))
        return out

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
