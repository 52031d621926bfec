"""One real forward, observed: which positions of which tensors belong together."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mutorch.ops.masked_statistics import Place

from .atoms import Atoms
from .dims import Dim, DimAlgebra, Labels
from .sizes import AttributeSize, DimSize, Source, TracedInt


@dataclass(frozen=True, slots=True)
class Bound:
    """An attribute that must be the number of live positions of a dimension."""

    attribute: AttributeSize
    dim: Dim
    size: int


_FUNCTIONS = {
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "_fused_rms_norm": "rms_norm",
}
"""The functions of torch that kernels belong to."""


@dataclass(slots=True)
class BlockCall:
    """What a module was given and gave, where both are single tensors."""

    given: Labels | None
    given_shape: tuple[int, ...]
    times: int = 0
    made: Labels | None = None
    made_shape: tuple[int, ...] = ()
    computes: bool = False


@dataclass(slots=True)
class PythonCall:
    """The call of torch's Python interface that is running."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def argument(self, position: int, name: str) -> Any:
        """An argument, wherever it was given; `None` where it was not."""
        if name in self.kwargs:
            return self.kwargs[name]
        return self.args[position] if position < len(self.args) else None


class Observer:
    """Carries labels through a forward; see `observe_labels`.

    Rules (`mutorch.channels.rules`) say what each operation does to labels; they read `labels(tensor)`, and learn through
    `algebra` and `constrain`.

    Attributes:
        parameters: labels of every parameter and floating buffer, by id.
        bound: attributes that follow a size.
        unknown: operations without a rule, by (operation, module), and how many channels they froze.
        averaged: (operation, module) of what computes otherwise when removed channels are zeros instead of absent, with the
            dimensions that it averages over.
        factors: sizes that become factors, such as the width that a scale is computed from, and the module that does so.
    """

    def __init__(self, atoms: Atoms, *, checking: bool = False) -> None:
        self.algebra = DimAlgebra(atoms, checking)
        self.parameters: dict[int, Labels] = {}
        self.bound: list[Bound] = []
        self.unknown: Counter[tuple[str, str]] = Counter()
        self.averaged: dict[tuple[str, str], dict[Place, list[Dim]]] = {}
        self.factors: list[tuple[Source, str]] = []
        self.python_call: PythonCall | None = None
        self.operation = ""
        self.modules: list[str] = []
        self.seen_parameters: set[int] = set()
        self.paths: dict[int, str] = {}
        self.memories: dict[int, set[str]] = {}
        self.blocks: dict[str, BlockCall] = {}
        self.blamed: list[Tensor] = []
        self._labels: dict[int, Labels] = {}
        self._by_memory: dict[Any, Labels] = {}
        self._kept: list[Any] = []

    # ---- labels ------------------------------------------------------------------------------------------------------

    @property
    def checking(self) -> bool:
        """Whether labels are only compared."""
        return self.algebra.checking

    @property
    def module(self) -> str:
        """The path of the innermost module that is running."""
        return self.modules[-1] if self.modules else ""

    def reason(self, what: str) -> str:
        """`what`, and where."""
        return f"{what} in {self.module!r}" if self.module else f"{what} in the model's own forward"

    def labels(self, tensor: Tensor) -> Labels:
        """The labels of a tensor; none for one that the observer knows nothing of."""
        number = id(tensor)
        found = self._labels.get(number)
        if found is None:
            found = self.parameters.get(number)
            if found is not None:
                self.seen_parameters.add(number)
            else:
                found = self._by_memory.get(_memory(tensor))
        return found if found is not None else ((),) * tensor.dim()

    def set_labels(self, tensor: Tensor, labels: Labels) -> None:
        """Remember the labels of a tensor."""
        self._labels[id(tensor)] = labels
        self._kept.append(tensor)
        if any(labels):
            self._by_memory[_memory(tensor)] = labels

    def blame(self, *arguments: Any) -> None:
        """Remember the tensors of the innermost operation that failed."""
        if not self.blamed:
            self.blamed = [x for x in tree_leaves(arguments) if isinstance(x, Tensor)]

    def keep_alive(self, tensors: Any) -> None:
        """Hold on to tensors: the id of one must not be given to another meanwhile."""
        self._kept.append(tensors)

    def forget(self) -> None:
        """Let go of the tensors of the forwards that were observed; what was learned stays."""
        self._kept, self._labels, self._by_memory = [], {}, {}

    def label_parameters(self, model: nn.Module) -> None:
        """New atoms for every dimension of every parameter and floating buffer."""
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and id(tensor) not in self.parameters:
                self.parameters[id(tensor)] = tuple(self.algebra.fresh(size) for size in tensor.shape)
                self._by_memory[_memory(tensor)] = self.parameters[id(tensor)]

    def shared_names(self, model: nn.Module) -> dict[tuple[str, str], tuple[str, str]]:
        """Where a tensor that stands at several places stands first."""
        first: dict[int, tuple[str, str]] = {}
        found: dict[tuple[str, str], tuple[str, str]] = {}
        for path, module in model.named_modules():
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None and first.setdefault(id(tensor), (path, name)) != (path, name):
                    found[path, name] = first[id(tensor)]
        return found

    # ---- what rules call ---------------------------------------------------------------------------------------------

    def unify(self, one: Dim, other: Dim, what: str) -> Dim:
        """Let two dimensions keep the same positions."""
        return self.algebra.unify(one, other, self.reason(what))

    def freeze(self, dims: Sequence[Dim], what: str) -> None:
        """Let nothing along these dimensions be removed."""
        for dim in dims:
            self.algebra.freeze(dim, self.reason(what))

    def constrain(self, value: Any, dim: Dim, size: int, what: str) -> None:
        """Note that `value`, as the model computed it, is the size of a dimension of `size` positions."""
        if self.checking or not isinstance(value, int) or value == -1 or isinstance(value, bool):
            return
        if not isinstance(value, TracedInt):
            if self.algebra.free(dim):
                self.freeze([dim], f"the number {value} in {what}")
            return
        if not value.is_source:
            return  # computed: what it was computed from is looked at where it is used, and a trial shows the rest
        source = value.sources[0]
        if isinstance(source, AttributeSize):
            self.bind(source, dim)
        elif source.size == size:
            self.algebra.tie_counts(source.dim, dim, self.reason(what))

    def bind(self, attribute: AttributeSize, dim: Dim) -> None:
        """Let an attribute be the number of live positions of a dimension."""
        if dim and not self.checking:
            self.bound.append(Bound(attribute, dim, len(dim[0])))

    def averages(self, tensor: Tensor, dims: Iterable[int], what: str | None = None) -> None:
        """Note that `what`, the current operation unless given, averages over dimensions of `tensor`.

        Zeros in place of removed channels would change what it computes.
        """
        for dim in dims:
            name = (what or self.operation).partition(".")[2]
            place = _FUNCTIONS.get(name, name), tensor.dim(), dim % tensor.dim(), int(tensor.shape[dim])
            self.note_average(place, self.labels(tensor)[dim], what or self.operation)

    def note_average(self, place: Place, dim: Dim, what: str) -> None:
        """Note that `what` averages over a dimension."""
        if not self.checking:
            self.averaged.setdefault((what, self.module), {}).setdefault(place, []).append(dim)

    def on_equal(self, one: TracedInt, other: TracedInt) -> None:
        """Two sizes that the model compares and finds equal."""
        for a, b in ((one, other), (other, one)):
            first, second = a.sources[0], b.sources[0]
            if isinstance(first, AttributeSize) and isinstance(second, DimSize) and self.algebra.free(second.dim):
                self.bind(first, second.dim)

    def on_number(self, value: TracedInt) -> None:
        """A size that becomes a factor of what the model computes."""
        if not self.checking:
            self.factors += [(source, self.module) for source in value.sources]

    def dim_size(self, dim: Dim, size: int) -> int:
        """A size that remembers its dimension."""
        if not dim or self.checking:
            return size
        return TracedInt(size, (DimSize(dim, size),), is_source=True, watch=self)


def _memory(tensor: Tensor) -> Any:
    if tensor.layout != torch.strided:
        return id(tensor)
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
