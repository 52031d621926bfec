"""From dynamic modules to plain ones: a copy for `export` and `to_static_op`, or in place."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mutorch.mutables.base import HELD

from .dynamic import STATE, DynamicState, make_static_, whole_tensor

MUTABLES = "mutable_attrs"
"""The child of a module that is declared dynamic which holds its mutables."""


@dataclass(frozen=True, slots=True)
class Plain:
    """What stands in a copy of a dynamic module until it gets its own class back.

    Attributes:
        values: its attributes.
        extras: names that its static class does not have.
    """

    values: dict[str, Any]
    extras: tuple[str, ...]


def enter_parts(modules: Iterable[nn.Module], memo: dict[int, Any]) -> None:
    """Prepare a memo of `copy.deepcopy`, so that copies of dynamic modules get the active parts of tensors.

    A tensor that several modules hold becomes one part.
    """
    for module in modules:
        state = module.__dict__.get(STATE)
        if not isinstance(state, DynamicState):
            continue
        for name in state.tensors:
            whole = whole_tensor(module, name)
            if whole is not None and id(whole) not in memo:
                memo[id(whole)] = active_part(state, name, whole)
        memo[id(state)] = plain = Plain(state.values(module), extras(module))
        for name in plain.extras:
            if name == MUTABLES:
                memo[id(module._modules[name])] = None  # not copied


def leave_(copied: nn.Module) -> None:
    """Give the copies of dynamic modules their own classes, in place."""
    for module in copied.modules():
        plain = vars(module).get(STATE)
        if isinstance(plain, Plain):
            make_static_(module, plain.values, plain.extras)


def static_copy(module: nn.Module) -> nn.Module:
    """A deep copy in which every dynamic module is plain, with what is active now."""
    memo: dict[int, Any] = {}
    enter_parts(module.modules(), memo)
    copied = copy.deepcopy(module, memo)
    leave_(copied)
    return copied


def to_static_(model: nn.Module) -> None:
    """Make every dynamic module plain, in place; tensors that modules share stay shared."""
    found = [module for module in model.modules() if isinstance(module.__dict__.get(STATE), DynamicState)]
    parts: dict[int, Tensor | None] = {}
    plain: list[tuple[nn.Module, Plain]] = []
    for module in found:
        state: DynamicState = module.__dict__[STATE]
        for name in state.tensors:
            whole = whole_tensor(module, name)
            if whole is not None and id(whole) not in parts:
                parts[id(whole)] = active_part(state, name, whole)
        plain.append((module, Plain(state.values(module), extras(module))))
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            held.update({name: parts[id(whole)] for name, whole in held.items() if id(whole) in parts})  # type: ignore[misc]
    for module, one in plain:
        make_static_(module, one.values, one.extras)


def extras(module: nn.Module) -> tuple[str, ...]:
    """The names that a module has because it is declared dynamic, or because values decide about it."""
    own = getattr(module, "extras", None)
    names = tuple(own()) if hasattr(module, "static_op_factory") and callable(own) else ()
    state = module.__dict__.get(STATE)
    return (*names, HELD) if isinstance(state, DynamicState) and state.twins is not None else names


def active_part(state: DynamicState, name: str, whole: Tensor) -> Tensor | None:
    """The active part of a parameter or buffer as a new one of the same kind; `None` where choices do without it."""
    part = state.part(name, whole)
    return nn.Parameter(part, whole.requires_grad) if part is not None and isinstance(whole, nn.Parameter) else part
