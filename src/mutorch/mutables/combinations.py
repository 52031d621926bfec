"""Several mutables at all of their choices."""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice, product
from typing import Any

from .base import BaseMutable
from .derived import DerivedMutable


def sources_of(mutables: Iterable[Any]) -> tuple[BaseMutable[Any, Any], ...]:
    """The mutables with choices of their own that these come from, each once, in order."""
    found: dict[int, BaseMutable[Any, Any]] = {}
    for mutable in mutables:
        for source in mutable.sources if isinstance(mutable, DerivedMutable) else (mutable,):
            found.setdefault(id(source), source)
    return tuple(found.values())


def number_of_combinations(sources: Iterable[BaseMutable[Any, Any]]) -> int:
    """How many `at_all_choices` goes through."""
    count = 1
    for members in _together(sources):
        count *= len(members[0].choices)
    return count


def at_all_choices(
    sources: Sequence[BaseMutable[Any, Any]], read: Callable[[], Any], *, limit: int | None = None
) -> list[Any]:
    """What `read` gives at every combination of the choices of `sources`, which are as before afterwards.

    Mutables with one alias move together. The first mutable moves slowest.

    Args:
        limit: how many combinations at most.

    Example:
        >>> from mutorch.mutables import OneShotMutableValue
        >>> depth, width = OneShotMutableValue([1, 2]), OneShotMutableValue([8, 16])
        >>> at_all_choices([depth, width], lambda: depth.current_choice * width.current_choice)
        [8, 16, 16, 32]
    """
    groups = _together(sources)
    before = [source.current_choice for source in sources]
    found = []
    try:
        for combination in islice(product(*(members[0].choices for members in groups)), limit):
            for members, choice in zip(groups, combination, strict=True):
                for member in members:
                    member.assign(choice)
            found.append(read())
    finally:
        for source, choice in zip(sources, before, strict=True):
            source.assign(choice)
    return found


def _together(sources: Iterable[BaseMutable[Any, Any]]) -> list[list[BaseMutable[Any, Any]]]:
    groups: dict[Any, list[BaseMutable[Any, Any]]] = {}
    for source in sources:
        groups.setdefault(("alias", source.alias) if source.alias else id(source), []).append(source)
    return list(groups.values())
