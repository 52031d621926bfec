"""One real forward, observed: which positions of which tensors belong together."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mutorch.mutables import MutableModule
from mutorch.ops.masked_statistics import Place
from mutorch.space.decision import key
from mutorch.utils import ExampleInputs, call, tensors_in, unchanged

from .atoms import Atoms
from .dims import Dim, DimAlgebra, Labels
from .python_calls import SHAPE_GETTER, constrain_arguments
from .sizes import AttributeSize, DimSize, Source, TracedInt, TracedShape, trace_attributes


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
        self.context: tuple[tuple[int, Any], ...] = ()
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


def observe_labels(
    model: nn.Module, example_inputs: ExampleInputs, observer: Observer, *, training: bool = False
) -> Any:
    """Run the model once under the observer and give its output. The model is as before afterwards.

    Args:
        training: run what runs in training only, such as auxiliary heads; norms keep to their statistics.
    """
    from .rules import apply_rule  # noqa: PLC0415  # rules are written against the observer

    with ExitStack() as stack:
        stack.enter_context(unchanged(model))
        if training:
            for module in model.modules():
                module.training = not isinstance(module, batchnorm._NormBase)
        stack.enter_context(_unfused())
        if not observer.checking:
            stack.enter_context(_traced_attributes(model, observer))
        for path, module in model.named_modules():
            observer.paths[id(module)] = path
            stack.enter_context(_entered(module, path, observer))
            if isinstance(module, MutableModule) and module.candidates:
                stack.enter_context(_all_candidates(module, observer))
        stack.enter_context(_PythonCalls(observer))
        stack.enter_context(_Kernels(observer, apply_rule))
        output = call(model, example_inputs)
    _note_memories(model, observer)
    if not observer.checking:
        for tensor in tensors_in(output):
            for dim in observer.labels(tensor):
                observer.algebra.freeze(dim, "feeds the model's output")
    return output


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def _note_memories(model: nn.Module, observer: Observer) -> None:
    """Dicts in which modules keep what they computed from their parameters; emptied, as before the first forward."""
    for module in model.modules():
        for name, held in vars(module).items():
            if (
                name not in _OF_EVERY_MODULE
                and type(held) is dict
                and any(isinstance(x, Tensor) and any(observer.labels(x)) for x in held.values())
            ):
                held.clear()
                observer.memories.setdefault(id(module), set()).add(name)


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, observer: Observer, apply_rule: Callable[..., None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observer = observer
        self._apply = apply_rule

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        try:
            out = func(*args, **kwargs)
            self._observer._kept.append((args, kwargs, out))  # an id must not be given to another tensor meanwhile
            self._apply(self._observer, func, args, kwargs, out)
        except Exception:
            if not self._observer.blamed:
                self._observer.blamed = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            raise
        return out


class _PythonCalls(TorchFunctionMode):
    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        observer, kwargs = self._observer, kwargs or {}
        if func is Tensor.size or func == SHAPE_GETTER:
            return _sizes(observer, func(*args, **kwargs), *args, **kwargs)
        name = getattr(func, "__name__", "")
        if name == "numel" and args[0].dim() == 1:
            return _sizes(observer, func(*args), args[0], 0)
        before, observer.python_call = observer.python_call, PythonCall(name, args, kwargs)
        try:
            out = func(*args, **kwargs)
            constrain_arguments(observer, observer.python_call, out)
        except Exception:
            if not observer.blamed:
                observer.blamed = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            raise
        finally:
            observer.python_call = before
        return out


def _sizes(observer: Observer, sizes: Any, tensor: Tensor, dim: Any = None) -> Any:
    if observer.checking or type(sizes) not in (int, torch.Size):
        return sizes
    labels = observer.labels(tensor)
    if not any(labels):
        return sizes
    if isinstance(sizes, int):
        return observer.dim_size(labels[dim], sizes)
    return TracedShape(observer.dim_size(label, size) for label, size in zip(labels, sizes, strict=True))


@contextmanager
def _traced_attributes(model: nn.Module, observer: Observer) -> Iterator[None]:
    before = {id(module): dict(vars(module)) for module in model.modules()}
    trace_attributes(model, observer)
    traced = {id(module): dict(vars(module)) for module in model.modules()}
    try:
        yield
    finally:
        for module in model.modules():
            for name, value in list(vars(module).items()):
                old = traced.get(id(module), {}).get(name)
                if old is value and isinstance(value, int | tuple | list):
                    module.__dict__[name] = before[id(module)][name]
                elif isinstance(value, TracedInt):
                    module.__dict__[name] = int(value)


@contextmanager
def _entered(module: nn.Module, path: str, observer: Observer) -> Iterator[None]:
    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        observer.modules.append(path)
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        if not observer.checking and given is not None:
            call = observer.blocks.setdefault(path, BlockCall(observer.labels(given), tuple(given.shape)))
            call.times += 1

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if path in observer.blocks and isinstance(output, Tensor) and not observer.checking:
            call = observer.blocks[path]
            call.made, call.made_shape = observer.labels(output), tuple(output.shape)
            call.computes = any(parameter.dim() > 1 for parameter in module.parameters())
        if isinstance(module, nn.MultiheadAttention) and not observer.checking:
            _tie_attention(module, observer)
        observer.modules.pop()

    handles = [module.register_forward_pre_hook(enter, with_kwargs=True), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tie_attention(module: nn.MultiheadAttention, observer: Observer) -> None:
    """`nn.MultiheadAttention` computes with as many channels as its input has: heads go where input channels go."""
    embedded = observer.labels(module.out_proj.weight)[0]
    packed: Tensor | None = module.in_proj_weight
    if packed is not None:
        parts = observer.algebra.split(
            observer.labels(module.in_proj_weight)[0], [3, module.embed_dim], observer.reason("the projections")
        )
        observer.freeze(parts[:1], "query, key and value")
        dims = [parts[1], observer.labels(module.in_proj_weight)[1]]
    else:
        dims = [*observer.labels(module.q_proj_weight), observer.labels(module.k_proj_weight)[0]]
        dims += [observer.labels(module.v_proj_weight)[0]]
        for name, weight in (("kdim", module.k_proj_weight), ("vdim", module.v_proj_weight)):
            labels = observer.labels(weight)[1]
            observer.bind(AttributeSize(module, name, int(weight.shape[1])), labels)
    for dim in [*dims, observer.labels(module.out_proj.weight)[1]]:
        observer.unify(embedded, dim, "the attention's width")
    heads = observer.algebra.split(embedded, [module.num_heads, module.head_dim], observer.reason("heads"))
    name = "multi_head_attention_forward"
    observer.note_average(
        (name, 0, 0, int(module.head_dim)), heads[1], f"torch.{name}"
    )  # the scale is 1 / sqrt(head_dim)
    size = int(module.embed_dim)
    own = [("num_heads", heads[0], int(module.num_heads)), ("head_dim", heads[1], int(module.head_dim))]
    own += [("embed_dim", embedded, size)]
    if module.in_proj_weight is not None:
        own += [("kdim", embedded, size), ("vdim", embedded, size)]
    for name, dim, count in own:
        observer.bind(AttributeSize(module, name, count), dim)


@contextmanager
def _all_candidates(module: MutableModule[Any, Any], observer: Observer) -> Iterator[None]:
    """Run every candidate, on the input that the block really gets, and let their outputs agree."""
    outer: list[Any] = []

    def before(*_: Any) -> None:
        outer.append(observer.context)
        observer.context = (*observer.context, (id(module), key(module.current_choice)))

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        observer.context = here = outer.pop()
        for choice in () if observer.checking else module.decision_choices:
            if key(choice) == key(module.current_choice):
                continue
            observer.context = (*here, (id(module), key(choice)))
            other = module.chosen_module(choice)(*args, **kwargs)
            for one, two in zip(tensors_in(output), tensors_in(other), strict=False):
                for a, b in zip(observer.labels(one), observer.labels(two), strict=False):
                    observer.unify(a, b, "the candidates' outputs")
        observer.context = here

    handles = [
        module.register_forward_pre_hook(before),
        module.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _unfused() -> Iterator[None]:
    """Without kernels that hide matrix products: the fast path of attention, and oneDNN's recurrent layers."""
    before = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags would set, and warn of, much else
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before[0])
        torch._C._set_mkldnn_enabled(before[1])


def _memory(tensor: Tensor) -> Any:
    if tensor.layout != torch.strided:
        return id(tensor)
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
