"""Running a model under an observer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mutorch.mutables import MutableModule
from mutorch.space.decision import key
from mutorch.utils import ExampleInputs, call, removing, tensors_in, unchanged

from .memories import dicts_of_tensors
from .observer import BlockCall, Observer, PythonCall
from .python_calls import SHAPE_GETTER, constrain_arguments
from .rules import apply_rule
from .sizes import TracedInt, TracedShape, trace_attributes
from .torch_attention import note_fused_layer, tie_attention


def observe_labels(
    model: nn.Module, example_inputs: ExampleInputs, observer: Observer, *, training: bool = False
) -> Any:
    """Run the model once under the observer and give its output. The model is as before afterwards.

    Args:
        training: run what runs in training only, such as auxiliary heads; norms keep to their statistics.
    """
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
            if isinstance(module, MutableModule) and module.runs_anywhere:
                stack.enter_context(_all_candidates(module, observer))
        stack.enter_context(_PythonCalls(observer))
        stack.enter_context(_Kernels(observer))
        output = call(model, example_inputs)
    _note_memories(model, observer)
    if not observer.checking:
        for tensor in tensors_in(output):
            for dim in observer.labels(tensor):
                observer.algebra.freeze(dim, "feeds the model's output")
    return output


def _note_memories(model: nn.Module, observer: Observer) -> None:
    """Dicts in which modules keep what they computed from their parameters; emptied, as before the first forward."""
    for module, name, held in dicts_of_tensors(model):
        if any(isinstance(x, Tensor) and any(observer.labels(x)) for x in held.values()):
            held.clear()
            observer.memories.setdefault(id(module), set()).add(name)


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, observer: Observer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observer = observer

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        try:
            out = func(*args, **kwargs)
            self._observer.keep_alive((args, kwargs, out))
            apply_rule(self._observer, func, args, kwargs, out)
        except Exception:
            self._observer.blame(args, kwargs)
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
            observer.blame(args, kwargs)
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
            tie_attention(module, observer)
        if isinstance(module, nn.TransformerEncoderLayer):
            note_fused_layer(module, observer)
        observer.modules.pop()

    if isinstance(module, torch.jit.ScriptModule):  # it takes no hooks
        yield
        return
    handles = [module.register_forward_pre_hook(enter, with_kwargs=True), module.register_forward_hook(leave)]
    with removing(handles):
        yield


@contextmanager
def _all_candidates(module: MutableModule[Any, Any], observer: Observer) -> Iterator[None]:
    """Run every candidate, on the input that the block really gets, and let their outputs agree."""

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        for choice in () if observer.checking else module.covering_choices:
            if key(choice) == key(module.current_choice):
                continue
            other = module.chosen_module(choice)(*args, **kwargs)
            for one, two in zip(tensors_in(output), tensors_in(other), strict=False):
                for a, b in zip(observer.labels(one), observer.labels(two), strict=False):
                    observer.unify(a, b, "the candidates' outputs")

    with removing([module.register_forward_hook(after, with_kwargs=True)]):
        yield


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
