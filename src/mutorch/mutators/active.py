"""What of a supernet is on the current path."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from mutorch.mutables import MutableModule
from mutorch.ops import DynamicSequential, SwitchableBatchNorm2d
from mutorch.ops.elements import idle_names, used_elements
from mutorch.ops.skippable import is_skipped


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
        if id(module) in seen or is_skipped(module):
            continue
        seen.add(id(module))
        yield module
        if isinstance(module, MutableModule) and (module.current_choice is not None or module.candidates):
            kept.extend(
                active := module.active_candidates()
            )  # made for the occasion, some of them: their ids must last
            waiting.extend(reversed(active))
        else:
            some = module.running_modules() if isinstance(module, DynamicSequential | SwitchableBatchNorm2d) else None
            children = list(module._modules.values() if some is None else some)
            waiting.extend(child for child in reversed(children) if child is not None)


def inactive_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that no module on the current path holds."""
    active = active_parameters(model)
    return [parameter for parameter in model.parameters() if id(parameter) not in active]


def active_parameters(model: nn.Module) -> set[int]:
    """The ids of the parameters that modules on the current path compute with, or with a part of."""
    return {id(parameter) for _, _, parameter in _held(model)}


def active_readers(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """The id of each active parameter to the modules on the path that hold it, with their names for it."""
    readers: dict[int, list[tuple[nn.Module, str]]] = {}
    for module, name, parameter in _held(model):
        readers.setdefault(id(parameter), []).append((module, name))
    return readers


def active_elements(readers: Iterable[tuple[nn.Module, str]]) -> Tensor | None:
    """A mask of the elements of a parameter that its readers compute with; `None` for all."""
    together: Tensor | None = None
    for module, name in readers:
        mask = used_elements(module, name)
        if mask is None:
            return None
        together = mask if together is None else together | mask
    return together


def _held(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for module in active_modules(model):
        idle = idle_names(module)
        for name, parameter in module._parameters.items():
            if parameter is not None and name not in idle:
                yield module, name, parameter
