"""A searchable model for a while without what follows choices: as its full self, or as the subnet that export makes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mutorch.ops import DynamicOp
from mutorch.ops.dynamic import dynamic_modules, refill_flat_weights_
from mutorch.ops.static import active_part, extras


def held(module: nn.Module, name: str) -> Tensor | None:
    """A parameter or buffer of a module, with all its channels; `None` where the module has none of that name."""
    parameter = module._parameters.get(name)
    return module._buffers.get(name) if parameter is None else parameter


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Dynamic modules are of their own classes, with all channels; those that are declared compute as they do now."""
    with _static(model, narrow=False):
        yield


@contextmanager
def narrowed(model: nn.Module) -> Iterator[None]:
    """Dynamic modules are of their own classes, with new tensors that hold the active channels, as after export."""
    with _static(model, narrow=True):
        yield


@contextmanager
def _static(model: nn.Module, *, narrow: bool) -> Iterator[None]:
    found = list(dynamic_modules(model))
    before = [(m, type(m), dict(vars(m)), dict(m._parameters), dict(m._buffers)) for _, m, _ in found]
    names = [[*state.sizes, *state.memories] for _, _, state in found]
    parts: dict[int, Tensor | None] = {}
    try:
        for _, module, followed in found:
            cut: dict[str, Tensor | None] = {}
            declared = isinstance(module, DynamicOp) or (followed.own or followed).twins is not None
            state = followed.own if followed.own is not None and not narrow else followed
            for name in state.tensors if narrow or declared else ():
                tensor = held(module, name)
                if tensor is None:
                    continue
                if id(tensor) not in parts:
                    parts[id(tensor)] = active_part(state, name, tensor)
                cut[name] = parts[id(tensor)]
            values: dict[str, Any] = (
                state.values(module) if narrow or declared else {name: {} for name in state.memories}
            )
            extra = extras(module)
            module.__dict__["_modules"] = {name: child for name, child in module._modules.items() if name not in extra}
            static: Any = type(module)
            while hasattr(static, "static_class"):
                static = static.static_class
            module.__class__ = static
            for name, part in cut.items():
                tensors: dict[str, Any] = module._parameters if name in module._parameters else module._buffers
                tensors[name] = part
            module.__dict__.update(values)
            refill_flat_weights_(module)
        yield
    finally:
        for (module, kind, attributes, parameters, buffers), changed in zip(before, names, strict=True):
            module.__class__ = kind
            module.__dict__.pop("_flat_weights", None)
            module.__dict__.update({name: attributes[name] for name in (*changed, "_modules")})
            module._parameters.update(parameters)
            module._buffers.update(buffers)
