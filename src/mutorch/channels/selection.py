"""Which modules a user means: globs, types and predicates."""

import fnmatch
from collections.abc import Callable, Iterable, Sequence

from torch import nn

from mutorch.errors import SpaceError, nearest

Selector = str | type[nn.Module] | Callable[[str, nn.Module], bool]
"""A glob over module paths (`"layer*.conv?"`), a module class, or `f(path, module) -> bool`."""


def select(model: nn.Module, selectors: Iterable[Selector] | Selector, *, what: str) -> list[str]:
    """The paths of the modules that any of the selectors means, in the order of the model.

    Errors:
        SpaceError: a selector that means nothing; says the nearest paths.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        >>> select(model, [nn.Linear], what="freeze"), select(model, "1", what="freeze")
        (['0', '2'], ['1'])
    """
    paths = dict(model.named_modules())
    chosen: set[str] = set()
    for selector in [selectors] if isinstance(selectors, str | type) or callable(selectors) else selectors:
        found = {path for path, module in paths.items() if _means(selector, path, module)}
        if not found:
            shown = selector if isinstance(selector, str) else getattr(selector, "__name__", repr(selector))
            near = nearest(shown.replace("*", ""), [path for path in paths if path])
            raise SpaceError(f"{what} names {shown!r}, which is no module of {type(model).__name__}; {near}")
        chosen |= found
    return [path for path in paths if path in chosen]


def _means(selector: Selector, path: str, module: nn.Module) -> bool:
    if isinstance(selector, str):
        return fnmatch.fnmatchcase(path, selector)
    if isinstance(selector, type):
        return isinstance(module, selector)
    return bool(selector(path, module))


def outermost(paths: Sequence[str]) -> list[str]:
    """The paths without those inside another one."""
    kept = set(paths)
    return [path for path in paths if not any(path[:end] in kept for end in _cuts(path))]


def _cuts(path: str) -> list[int]:
    return [position for position, letter in enumerate(path) if letter == "."]
