"""What a module looks like that a class builds from some arguments: shapes and attributes, as plain data."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from mutorch.errors import ChoiceError
from mutorch.mutables import BaseMutable
from mutorch.mutables.base import HELD

from .dynamic import STATE

_OF_EVERY_MODULE = frozenset(vars(nn.Module())) | {HELD}
_OF_RECURRENT = frozenset(("_flat_weights", "_flat_weight_refs"))
GATES = {"LSTM": 4, "GRU": 3}


@dataclass(frozen=True, slots=True)
class Part:
    """One module of what was built.

    Attributes:
        kind: its class.
        shapes: of its parameters and buffers; `None` for one that it goes without.
        buffers: what is in its buffers; empty for one that was built without memory.
        attributes: what it holds besides tensors and modules.
        stacked: tensors whose first dimension is so many equal pieces, one after the other.
        kernels: tensors whose dimensions from the third are the places of a kernel.
        buffer_names: which of the tensors are buffers.
    """

    kind: type[nn.Module]
    shapes: dict[str, tuple[int, ...] | None]
    buffers: dict[str, Tensor]
    attributes: dict[str, Any]
    stacked: dict[str, int]
    kernels: tuple[str, ...]
    buffer_names: tuple[str, ...]


Blueprint = dict[str, Part]
"""By path inside the module that was built; its own is the empty one."""


def blueprint_of(module: nn.Module) -> Blueprint:
    """What a module looks like now.

    Errors:
        ChoiceError: it holds what a blueprint cannot say: a tensor that is neither parameter nor buffer, a parameter without
            a size, or a layer that follows choices itself.
    """
    return {path: _part(path, part) for path, part in module.named_modules() if not isinstance(part, BaseMutable)}


def _part(path: str, module: nn.Module) -> Part:
    where = f"{path!r}, a {type(module).__name__}," if path else f"{type(module).__name__}"
    if STATE in vars(module):
        raise ChoiceError(
            f"{where} follows choices itself; call the class that builds it without layer(), or give it plain numbers"
        )
    tensors = {**module._parameters, **module._buffers}
    lazy = [name for name, tensor in tensors.items() if tensor is not None and is_lazy(tensor)]
    if lazy:
        raise ChoiceError(f"{where} has a parameter without a size yet, {lazy[0]!r}; use the class that is not lazy")
    attributes = {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
    if isinstance(module, nn.RNNBase):
        attributes = {name: value for name, value in attributes.items() if name not in _OF_RECURRENT}
    for name, value in attributes.items():
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
            raise ChoiceError(f"{where} holds a tensor in {name!r} that is no buffer; register it as one")
    return Part(
        kind=type(module),
        shapes={name: None if tensor is None else tuple(tensor.shape) for name, tensor in tensors.items()},
        buffers={
            name: buffer.detach().cpu().clone()
            for name, buffer in module._buffers.items()
            if buffer is not None and not buffer.is_meta
        },
        attributes=attributes,
        stacked=_stacked(module),
        kernels=("weight",) if isinstance(module, _ConvNd) else (),
        buffer_names=tuple(name for name, buffer in module._buffers.items() if buffer is not None),
    )


def _stacked(module: nn.Module) -> dict[str, int]:
    """Queries, keys and values; the gates of recurrent layers."""
    if isinstance(module, nn.MultiheadAttention):
        return {"in_proj_weight": 3, "in_proj_bias": 3}
    if isinstance(module, nn.RNNBase) and module.mode in GATES:
        held = module._parameters
        return {name: GATES[module.mode] for name in held if name.startswith(("weight_ih", "weight_hh", "bias_"))}
    return {}


def positions(whole: int, count: int, *, pieces: int = 1, middle: bool = False) -> Iterable[int]:
    """Which of `whole` positions are the active `count`.

    Args:
        pieces: so many equal pieces stand one after the other, and each gives its first.
        middle: the middle ones; of an odd one among even ones, or the reverse, the earlier middle.
    """
    if middle:
        start = whole // 2 - count // 2
        return range(start, start + count)
    if pieces == 1:
        return range(count)
    return [piece * (whole // pieces) + place for piece in range(pieces) for place in range(count // pieces)]


def differing(one: Part, other: Part) -> set[str]:
    """The attributes that are not the same in both."""
    return {
        name
        for name, value in one.attributes.items()
        if name in other.attributes and not same(value, other.attributes[name])
    }


def same(one: Any, other: Any, seen: frozenset[tuple[int, int]] = frozenset()) -> bool:
    """Whether two attributes say the same, as far as they are data; what is made anew by each build is compared inside."""
    pair = id(one), id(other)
    if one is other or pair in seen:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, nn.Module):
        return True  # each build has its own
    equal: Any = type(one).__eq__
    by_value = equal is not object.__eq__ and not isinstance(one, list | tuple | dict)
    if by_value:
        try:
            if one == other:
                return True
        except Exception:  # a class of the user's
            return False
    inside = list(_inside(one)), list(_inside(other))
    if not inside[0] and by_value:
        return False
    return len(inside[0]) == len(inside[1]) and all(same(a, b, seen | {pair}) for a, b in zip(*inside, strict=True))


def holds_module(value: Any) -> bool:
    """Whether a module can be reached from an attribute."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        here = waiting.pop()
        if isinstance(here, nn.Module):
            return True
        if id(here) not in seen:
            seen.add(id(here))
            waiting.extend(_inside(here))
    return False


def _inside(value: Any) -> Iterator[Any]:
    """The parts that make up a value."""
    match value:
        case list() | tuple():
            yield from value
        case dict():
            for name, held in value.items():
                yield name
                yield held
        case types.FunctionType():
            yield value.__code__
            yield from (cell.cell_contents for cell in value.__closure__ or ())
            yield value.__defaults__
            yield value.__kwdefaults__
        case types.MethodType():
            yield value.__func__
            yield value.__self__
        case partial():
            yield from (value.func, value.args, value.keywords)
        case _ if hasattr(value, "__dict__") and not isinstance(value, type | types.ModuleType | enum.Enum):
            yield vars(value)
