"""Which mutables a function reads: found through what it holds on to, and rebound when a model is copied."""

import copy
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from .base import BaseMutable


def find_sources(*functions: object) -> list[BaseMutable[Any, Any]]:
    """The source mutables that these functions hold on to, each once, in order of discovery.

    Looks through closure variables, the globals that the code names, default arguments, `functools.partial`, bound
    methods, attributes of callable objects, dict keys and values, and other containers; a derived mutable contributes
    its own sources. Of a model that a function holds, as in `lambda: self.width.current_choice`, only the children that
    its code names are looked at.
    """
    found: dict[int, BaseMutable[Any, Any]] = {}
    for module in _modules_held(functions, set()):
        if isinstance(module, BaseMutable):
            for source in getattr(module, "sources", (module,)):
                found.setdefault(id(source), source)
    return list(found.values())


def rebind(held: Any, memo: dict[int, Any]) -> Any:
    """A deep copy of `held` in which functions read the copied modules.

    `copy.deepcopy` returns functions as they are, so that a copied model would go on reading the original's mutables.
    """
    if id(held) in memo:
        return memo[id(held)]
    if isinstance(held, nn.Module) or not any(True for _ in _modules_held(held, set())):
        return copy.deepcopy(held, memo)
    match held:
        case types.FunctionType():
            return _rebound_function(held, memo)
        case types.MethodType():
            return types.MethodType(rebind(held.__func__, memo), rebind(held.__self__, memo))
        case partial():
            keywords = {name: rebind(value, memo) for name, value in held.keywords.items()}
            return partial(rebind(held.func, memo), *(rebind(value, memo) for value in held.args), **keywords)
        case list() | tuple() if type(held) in (list, tuple):
            return type(held)(rebind(item, memo) for item in held)
        case dict() if type(held) is dict:
            return {rebind(name, memo): rebind(value, memo) for name, value in held.items()}
    if callable(held) and hasattr(held, "__dict__"):
        copied = memo[id(held)] = copy.copy(held)
        copied.__dict__ |= {name: rebind(value, memo) for name, value in vars(held).items()}
        return copied
    return copy.deepcopy(held, memo)


def _rebound_function(function: types.FunctionType, memo: dict[int, Any]) -> types.FunctionType:
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    scope = dict(function.__globals__)
    copied = types.FunctionType(function.__code__, scope, function.__name__, None, cells)
    memo[id(function)] = copied  # first of all: a function may hold on to itself
    scope |= {name: rebind(value, memo) for name, value in _globals_with_mutables(function).items()}
    for cell, original in zip(cells, function.__closure__ or (), strict=True):
        if _is_filled(original):
            cell.cell_contents = rebind(original.cell_contents, memo)
    copied.__defaults__ = rebind(function.__defaults__, memo)
    copied.__kwdefaults__ = rebind(function.__kwdefaults__, memo)
    return copied


def _modules_held(held: object, seen: set[int]) -> Iterator[nn.Module]:
    if id(held) in seen or held is None or isinstance(held, str | bytes | type):
        return
    seen.add(id(held))
    if isinstance(held, nn.Module):
        yield held
    for part in _parts(held):
        yield from _modules_held(part, seen)


def _parts(held: object) -> Iterable[object]:
    match held:
        case nn.ModuleList() | nn.Sequential() | nn.ModuleDict():
            return list(held.children())
        case nn.Module():
            return []
        case types.FunctionType():
            cells = [cell.cell_contents for cell in held.__closure__ or () if _is_filled(cell)]
            named = [found for cell in cells for found in _named_within(cell, held.__code__.co_names)]
            return [*cells, *named, *_globals_with_mutables(held).values(), held.__defaults__, held.__kwdefaults__]
        case types.MethodType():
            names = held.__func__.__code__.co_names if isinstance(held.__func__, types.FunctionType) else ()
            return [held.__self__, held.__func__, *_named_within(held.__self__, names)]
        case partial():
            return [held.func, held.args, held.keywords]
        case Mapping():
            return [*held.keys(), *held.values()]
        case list() | tuple() | set() | frozenset():
            return held
    return list(vars(held).values()) if callable(held) and hasattr(held, "__dict__") else []


def _named_within(held: object, names: tuple[str, ...]) -> list[nn.Module]:
    """What code that holds a model reads of it, as in `lambda: self.width.current_choice`: children that it names."""
    found: list[nn.Module] = []
    waiting = [held] if isinstance(held, nn.Module) and not isinstance(held, BaseMutable) else []
    while waiting:
        children = [child for name, child in waiting.pop()._modules.items() if name in names and child is not None]
        found += children
        waiting += [child for child in children if not isinstance(child, BaseMutable)]
    return found


def _globals_with_mutables(function: types.FunctionType) -> dict[str, object]:
    """What a function in a notebook cell or a script reads: mutables, or containers of some, that are global names."""
    named = {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}
    return {
        name: value
        for name, value in named.items()
        if isinstance(value, nn.Module | list | tuple | dict) and find_sources(value)
    }


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # a variable that is assigned later
        return False
    return True
