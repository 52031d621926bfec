"""Modules that compute with the active part of their tensors, whatever their class.

A dynamic module keeps its parameters and buffers whole: `state_dict`, optimizers and DistributedDataParallel see what they
always saw. Only *reading* `module.weight` gives the active part, so the class's own forward computes the subnet without
knowing of it, and integers such as `num_heads` follow in the same way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from mutorch.mutables.clock import CLOCK, tick

from .extent import Extent
from .masked_statistics import MaskedStatistics, Place

Mode = Literal["slice", "mask"]
STATE = "_dynamic"
"""The attribute of a dynamic module that holds its `DynamicState`."""


Dims = tuple[tuple[int, Extent], ...]
"""Dimensions of a tensor with what is active along them."""


@dataclass(slots=True)
class Execution:
    """How the modules of one model compute; they share it.

    Attributes:
        mode: `"slice"` computes with the active channels only; `"mask"` computes with all and zeroes the others, so that
            shapes stay and one compiled graph serves every architecture.
    """

    mode: Mode = "slice"


@dataclass(frozen=True, slots=True)
class FollowedSize:
    """An integer attribute that is the product of the active sizes of some extents.

    Attributes:
        index: its place in a tuple or list; `None` for a bare integer.
    """

    extents: tuple[Extent, ...]
    factor: int = 1
    index: int | None = None

    def value(self) -> Any:
        """The number now."""
        total = self.factor
        for extent in self.extents:
            total *= extent.count()
        return total

    @property
    def in_mask_mode(self) -> bool:
        """Whether it is followed in mask mode too, where shapes stay."""
        return False


class TensorRule(Protocol):
    """Another way to read a tensor than to take the active part of every dimension.

    A rule whose `read` computes, rather than takes elements, also has `elements(name, index, dims)`: the elements that it
    computes with, taken of `index`, an integer tensor of the shape of the whole. A rule that reads further parameters of its
    module has `idle()`: the names of those that the current choices do without.
    """

    def read(self, name: str, whole: Tensor, dims: Dims, mode: Mode) -> Any:
        """The tensor that the module computes with; in mask mode it has the shape of `whole`."""


@dataclass(slots=True)
class DynamicState:
    """What of a dynamic module follows choices.

    Attributes:
        tensors: parameter or buffer to the extents of its dimensions.
        sizes: integer attribute to what it follows.
        memories: attributes in which the module's own forward keeps what it computed from its tensors; they are empty
            again after each change.
        statistics: dimensions that the module averages over; see `MaskedStatistics`.
        rules: tensors that are read in another way.
        own: what the module followed before `make_dynamic_`, if it was declared dynamic.
        twins: what decides in place of channels, where the arguments of the module's class are mutables; see `layer`.
    """

    execution: Execution = field(default_factory=Execution)
    tensors: dict[str, Dims] = field(default_factory=dict)
    sizes: dict[str, tuple[FollowedSize, ...]] = field(default_factory=dict)
    memories: dict[str, tuple[int, dict[Any, Any]]] = field(default_factory=dict)
    statistics: dict[Place, Extent] = field(default_factory=dict)
    rules: dict[str, TensorRule] = field(default_factory=dict)
    own: DynamicState | None = None
    twins: Any = None
    cache: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    written: list[tuple[Tensor, Dims, Tensor]] = field(default_factory=list)

    def __deepcopy__(self, memo: dict[int, Any]) -> DynamicState:
        # What is cached is a view of the original's tensors.
        return DynamicState(
            copy.deepcopy(self.execution, memo),
            copy.deepcopy(self.tensors, memo),
            copy.deepcopy(self.sizes, memo),
            {name: (-1, {}) for name in self.memories},
            copy.deepcopy(self.statistics, memo),
            copy.deepcopy(self.rules, memo),
            copy.deepcopy(self.own, memo),
            copy.deepcopy(self.twins, memo),
        )

    def __getstate__(self) -> tuple[Any, ...]:
        own = self.own, self.twins
        return self.execution, self.tensors, self.sizes, list(self.memories), self.statistics, self.rules, *own

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.execution, self.tensors, self.sizes, memories, self.statistics, self.rules, *own = state
        self.own, self.twins = own
        self.memories = {name: (-1, {}) for name in memories}
        self.cache, self.written = {}, []

    def active(self, module: nn.Module, name: str, whole: Tensor) -> Any:
        """The active part of a tensor, or, in mask mode, the tensor with zeros elsewhere."""
        if name in self.rules:
            return self.rules[name].read(name, whole, self.tensors[name], self.execution.mode)
        if self.execution.mode == "mask":
            return self._masked(module, name, whole, self.tensors[name])
        memory = None if torch.compiler.is_compiling() else _memory(whole)
        if memory is None:
            return self._cut(module, name, whole)
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        cached = self.cache.get(name)
        if cached is not None:
            # `parameter.data = other`, as vector_to_parameters does, keeps the parameter and changes its memory.
            known, now, known_memory, known_modes, version, part = cached
            if (
                known is whole
                and now == CLOCK.now
                and known_memory == memory
                and known_modes == modes
                and (version is None or version == whole._version)
            ):
                return part
        part = self._cut(module, name, whole)
        packs = modes[1] and not module.training and name in module._parameters
        if packs:
            # Kernels copy a weight with gaps at every call; in inference mode, where weights stay, once is enough. What
            # is written through `.data` meanwhile, torch does not say: `tick()` does.
            part = part.contiguous()
        if packs or part is whole or _is_view(part, whole):
            self.cache[name] = whole, CLOCK.now, memory, modes, whole._version if packs else None, part
        return part

    def _cut(self, module: nn.Module, name: str, whole: Tensor) -> Tensor:
        dims = self.tensors[name]
        part = cut(whole, dims)
        if module.training and name in module._buffers and part is not whole and not _is_view(part, whole):
            self.written.append((whole, dims, part))  # a copy: what a norm writes into it must come back
        return part

    def part(self, name: str, whole: Tensor) -> Tensor | None:
        """The active part of a tensor as new contiguous memory, without history; `None` where choices do without it."""
        dims = self.tensors.get(name, ())
        if name in self.rules:
            read = self.rules[name].read(name, whole, dims, "slice")
            if read is None:
                return None
            part: Tensor = read.detach()
        else:
            part = cut(whole.detach(), dims)
        return part.clone(memory_format=torch.contiguous_format)

    def values(self, module: nn.Module) -> dict[str, Any]:
        """The attributes that follow sizes, as plain values of their own."""
        sizes = {name: copy.deepcopy(self.size(name, module.__dict__[name], "slice")) for name in self.sizes}
        return {**sizes, **{name: {} for name in self.memories}}

    def _masked(self, module: nn.Module, name: str, whole: Tensor, dims: Dims) -> Tensor:
        if name in module._buffers:
            if not module.training:
                return whole
            part = whole.clone()
            self.written.append((whole, dims, part))
            return part
        return masked(whole, dims)

    def write_back(self) -> None:
        """Put what a forward wrote into copies of buffers where it belongs."""
        written, self.written = self.written, []
        for whole, dims, part in written:
            with torch.no_grad():
                if part.shape == whole.shape:
                    mask = torch.ones((), device=whole.device)
                    for dim, extent in dims:
                        mask = mask * extent.mask(whole.device).view(-1, *[1] * (whole.dim() - dim - 1))
                    whole.copy_(torch.where(mask > 0, part, whole))
                else:
                    _scatter(whole, dims, part)

    def size(self, name: str, whole: Any, mode: Mode | None = None) -> Any:
        """An attribute as the current choices have it."""
        followed = self.sizes[name]
        if (mode or self.execution.mode) == "mask" and not followed[0].in_mask_mode:
            return whole
        if followed[0].index is None:
            return followed[0].value()
        items = list(whole)
        for one in followed:
            items[one.index or 0] = one.value()
        return type(whole)(items)


def _is_view(part: Tensor, whole: Tensor) -> bool:
    """Whether a part shares memory with the whole: a view may also be one of a copy."""
    return part._base is not None and part._base is (whole if whole._base is None else whole._base)


def _memory(tensor: Tensor) -> int | None:
    """Where a tensor is; `None` for what stands for one inside a function transform or a trace."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return None


def cut(whole: Tensor, dims: Dims) -> Tensor:
    """The active part of a tensor: a view where the first positions are active along every dimension, else a copy."""
    if len(dims) > 1 and not torch.compiler.is_compiling():  # a trace cannot read the offset of a tensor
        sizes = list(whole.shape)
        for dim, extent in dims:
            selection = extent.selection()
            if isinstance(selection, Tensor):
                break
            sizes[dim] = sizes[dim] if selection is None else selection
        else:
            # One view, so that backward fills the gradient of the whole once, not once for each dimension.
            same = sizes == list(whole.shape)
            return whole if same else whole.as_strided(sizes, whole.stride(), whole.storage_offset())
    for dim, extent in dims:
        whole = extent.take(whole, dim)
    return whole


def masked(whole: Tensor, dims: Dims) -> Tensor:
    """A tensor with zeros where something is not active."""
    for dim, extent in dims:
        mask = extent.mask(whole.device).to(whole.dtype)
        whole = whole * mask.view(-1, *[1] * (whole.dim() - dim - 1))
    return whole


def _scatter(whole: Tensor, dims: Dims, part: Tensor) -> None:
    target = torch.arange(whole.numel(), device=whole.device).view(whole.shape)
    for dim, extent in dims:
        target = extent.take(target, dim)
    whole.view(-1).index_copy_(0, target.reshape(-1), part.reshape(-1))


def whole_tensor(module: nn.Module, name: str) -> Any:
    """A parameter or buffer of a dynamic module as it is stored; `None` where there is none."""
    for held in (module._parameters, module._buffers, module.__dict__):
        if held.get(name) is not None:
            return held[name]
    return None


def active_tensor(name: str) -> property:
    """The property that reads a parameter or buffer of a dynamic module."""

    def read(module: Any) -> Any:
        whole = module._parameters.get(name)
        if whole is None:
            whole = module._buffers.get(name)
        if whole is None:
            whole = whole_tensor(module, name)
        if whole is None:
            if not any(name in held for held in (module._parameters, module._buffers, module.__dict__)):
                raise AttributeError(f"{type(module).__name__!r} has no attribute {name!r}")
            return None
        state = module.__dict__.get(STATE)
        return whole if state is None or name not in state.tensors else state.active(module, name, whole)

    def write(module: Any, value: Any) -> None:
        if isinstance(value, nn.Parameter) or name in module._parameters or name in module._buffers:
            nn.Module.__setattr__(module, name, value)
        else:
            module.__dict__[name] = value  # as torch.nn.utils.prune leaves what it computed

    return property(read, write)


def followed_size(name: str) -> property:
    """The property that reads an integer attribute of a dynamic module."""

    def read(module: Any) -> Any:
        try:
            whole = module.__dict__[name]
        except KeyError:
            raise AttributeError(f"{type(module).__name__!r} has no attribute {name!r}") from None
        state = module.__dict__.get(STATE)
        return whole if state is None or name not in state.sizes else state.size(name, whole)

    def write(module: Any, value: Any) -> None:
        module.__dict__[name] = value

    return property(read, write)


def memory(name: str) -> property:
    """The property that reads what a module's forward keeps: nothing, after a change."""

    def read(module: Any) -> Any:
        state = module.__dict__.get(STATE)
        if state is None or name not in state.memories:
            return module.__dict__[name]
        now, kept = state.memories[name]
        if now != CLOCK.now:
            kept = {}
            state.memories[name] = CLOCK.now, kept
        return kept

    def write(module: Any, value: Any) -> None:
        state = module.__dict__.get(STATE)
        if state is None or name not in state.memories:
            module.__dict__[name] = value
        else:
            state.memories[name] = CLOCK.now, value

    return property(read, write)


Names = tuple[str, ...]
_CLASSES: dict[tuple[type, Names, Names, Names, bool], type] = {}


def dynamic_class(static: type[nn.Module], tensors: Names, sizes: Names, memories: Names = (), *, forward: bool) -> Any:
    """A subclass of `static` in which these tensors and integers are read as the current choices have them."""
    found = _CLASSES.get((static, tensors, sizes, memories, forward))
    if found is not None:
        return found
    members: dict[str, Any] = {name: active_tensor(name) for name in tensors}
    members |= {name: followed_size(name) for name in sizes}
    members |= {name: memory(name) for name in memories}
    members |= {
        "static_class": static,
        "__module__": __name__,
        "__doc__": static.__doc__,
        "_apply": _apply,
        "train": _train,
        "_load_from_state_dict": _load_from_state_dict,
        "__reduce_ex__": _reduce,
    }
    if forward:
        members["forward"] = _following(static.forward)
    if issubclass(static, nn.RNNBase):
        members["_flat_weights"] = property(_flat_weights, _set_flat_weights)
    made = type(f"Dynamic{static.__name__}", (static,), members)
    _CLASSES[static, tensors, sizes, memories, forward] = made
    return made


def _train(self: Any, mode: bool = True) -> Any:
    tick()  # what was packed for evaluation is not kept over a change of modes
    return type(self).static_class.train(self, mode)


def _apply(self: Any, *args: Any, **kwargs: Any) -> Any:
    tick()  # parameters move: what was read of them is no longer theirs
    return type(self).static_class._apply(self, *args, **kwargs)


def _load_from_state_dict(self: Any, *args: Any, **kwargs: Any) -> None:
    tick()
    type(self).static_class._load_from_state_dict(self, *args, **kwargs)


def _reduce(self: Any, protocol: Any) -> tuple[Any, ...]:
    cls = type(self)
    own = self.__dict__[STATE]
    names = (tuple(own.tensors), tuple(own.sizes), tuple(own.memories))
    return _rebuild, (cls.static_class, *names, "forward" in vars(cls)), self.__getstate__()


def _rebuild(static: type[nn.Module], tensors: Names, sizes: Names, memories: Names, forward: bool) -> Any:
    cls = dynamic_class(static, tensors, sizes, memories, forward=forward)
    return cls.__new__(cls)


def _following(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward that counts only active channels where it averages, and puts back what it wrote into parts of buffers."""

    def forward_of_active(self: Any, *args: Any, **kwargs: Any) -> Any:
        state = self.__dict__[STATE]
        if state.statistics and state.execution.mode == "mask":
            with MaskedStatistics(state.statistics):
                out = forward(self, *args, **kwargs)
        else:
            out = forward(self, *args, **kwargs)
        if state.written:
            state.write_back()
        return out

    return forward_of_active


def _flat_weights(self: Any) -> list[Any]:
    return [getattr(self, name, None) for name in self._flat_weights_names]


def refill_flat_weights_(module: nn.Module) -> None:
    """Let the list that a recurrent layer keeps of its weights hold the ones that it has now; of other modules, nothing."""
    if isinstance(module, nn.RNNBase):
        module.__dict__["_flat_weights"] = _flat_weights(module)


def _set_flat_weights(self: Any, value: Any) -> None:
    """Recurrent layers keep a list of their weights; here it is read from the weights themselves."""


def make_dynamic_(module: nn.Module, state: DynamicState) -> None:
    """Let `module` read its tensors and sizes through `state`, in place: its class becomes a subclass of what it was."""
    own = module.__dict__.get(STATE)
    if own is not None:
        _add(own, state)
    names, sizes, memories = tuple(state.tensors), tuple(state.sizes), tuple(state.memories)
    forward = bool(state.statistics) or any(name in module._buffers for name in names)
    for name in memories:
        module.__dict__[name] = {}
    module.__dict__.pop("_flat_weights", None)
    module.__dict__[STATE] = state
    module.__class__ = dynamic_class(type(module), names, sizes, memories, forward=forward)


def _add(own: DynamicState, state: DynamicState) -> None:
    """Let `state` follow what a module that is declared dynamic follows of its own, too."""
    for name, dims in own.tensors.items():
        state.tensors[name] = (*dims, *state.tensors.get(name, ()))
    state.sizes = {**own.sizes, **state.sizes}
    state.rules, state.own = own.rules, own


def dynamic_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module, DynamicState]]:
    """Every dynamic module of a model, with its path and state."""
    for path, module in model.named_modules():
        state = module.__dict__.get(STATE)
        if isinstance(state, DynamicState):
            yield path, module, state


def restore_(module: nn.Module) -> None:
    """Undo `make_dynamic_`: the module is whole again, and of its own class."""
    state = module.__dict__.get(STATE)
    if state is not None and type(module).__reduce_ex__ is _reduce:
        _forget(module, state)
        refill_flat_weights_(module)


def make_static_(module: nn.Module, values: dict[str, Any], extras: Names = ()) -> None:
    """Give a dynamic module, whose tensors are cut already, its own class back, with these values of its attributes.

    Args:
        extras: what a declared one has beside the attributes of its static class; removed.
    """
    static: Any = type(module)
    while hasattr(static, "static_class"):
        static = static.static_class
    del module.__dict__[STATE]
    module.__class__ = static
    for name in extras:
        for held in (module._modules, module._parameters, module._buffers, module.__dict__):
            held.pop(name, None)
    module.__dict__.update(values)
    refill_flat_weights_(module)


def _forget(module: nn.Module, state: DynamicState) -> None:
    if state.own is None:
        del module.__dict__[STATE]
    else:
        module.__dict__[STATE] = state.own
    module.__class__ = type(module).static_class  # type: ignore[attr-defined]
