"""What of a supernet is on the current path."""

from collections.abc import Iterator

from torch import nn

from mutorch.mutables import MutableModule
from mutorch.ops import DynamicSequential, DynamicState
from mutorch.ops.dynamic import STATE


def active_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Every module that the current choices keep, each once; unchosen candidates and blocks beyond a depth are left out.

    Example:
        >>> from mutorch.mutables import OneShotMutableOP
        >>> op = OneShotMutableOP({"a": nn.ReLU(), "b": nn.GELU()})
        >>> op.current_choice = "b"
        >>> [type(module).__name__ for module in active_modules(op)]
        ['OneShotMutableOP', 'GELU']
    """
    seen: set[int] = set()
    waiting = [model]
    kept: list[nn.Module] = []
    while waiting:
        module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield module
        if isinstance(module, MutableModule) and (module.current_choice is not None or module.candidates):
            kept.extend(
                active := module.active_candidates()
            )  # made for the occasion, some of them: their ids must last
            waiting.extend(reversed(active))
        else:
            running = module.running_modules() if isinstance(module, DynamicSequential) else None
            children = module._modules.values() if running is None else running
            waiting.extend(child for child in reversed(list(children)) if child is not None)


def inactive_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that no module on the current path holds."""
    active = active_parameters(model)
    return [parameter for parameter in model.parameters() if id(parameter) not in active]


def active_parameters(model: nn.Module) -> set[int]:
    """The ids of the parameters that modules on the current path compute with, or with a part of."""
    active: set[int] = set()
    for module in active_modules(model):
        state = module.__dict__.get(STATE)
        rules = state.rules if isinstance(state, DynamicState) else ()
        for name, parameter in module._parameters.items():
            if name not in rules or getattr(module, name) is not None:  # choices may do without it
                active.add(id(parameter))
    return active
