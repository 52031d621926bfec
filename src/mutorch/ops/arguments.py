"""Arguments of a constructor some of which are mutables."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from mutorch.mutables import BaseMutable
from mutorch.mutables.combinations import at_all_choices, sources_of
from mutorch.space.decision import key

_TRIES = 512
"""Combinations of extreme arguments that are tried."""


class Arguments:
    """What a class is called with; mutables may stand anywhere in it, also inside lists, tuples and dicts.

    Attributes:
        mutables: by the name of the argument that they are in, with a place where it holds several.
        sources: the mutables with choices of their own that decide.
    """

    def __init__(self, cls: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.args = tuple(args)
        self.kwargs = dict(kwargs)
        self.mutables = dict(_named(cls, self.args, self.kwargs))
        self.sources = sources_of(self.mutables.values())

    def now(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as the current choices have them."""
        return self._with(lambda mutable: mutable.current_choice)

    def chosen(self) -> tuple[Any, ...]:
        """What the sources have chosen now, to look things up by."""
        return tuple([key(source.current_choice) for source in self.sources])

    def extremes(self) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The arguments with each mutable at its largest, then at others of its extremes: what builds the largest layer.

        Numbers are largest one by one, so that (1, 7) and (3, 3) give (3, 7).
        """
        mutables = list({id(mutable): mutable for mutable in self.mutables.values()}.values())
        options = [_options(_values(mutable)) for mutable in mutables]
        for number, picked in enumerate(product(*options)):
            if number == _TRIES:
                return
            values = {id(mutable): value for mutable, value in zip(mutables, picked, strict=True)}
            yield self._with(lambda mutable, values=values: values[id(mutable)])

    def _with(self, read: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return _filled(self.args, read), _filled(self.kwargs, read)

    def __deepcopy__(self, memo: dict[int, Any]) -> Arguments:
        copied = Arguments.__new__(Arguments)
        memo[id(self)] = copied

        def of_copy(mutable: Any) -> Any:
            return copy.deepcopy(mutable, memo)

        copied.args, copied.kwargs = self._with(of_copy)
        copied.mutables = {name: of_copy(mutable) for name, mutable in self.mutables.items()}
        copied.sources = tuple(of_copy(source) for source in self.sources)
        return copied


def is_mutable(value: Any) -> bool:
    """Whether a value is a mutable."""
    return isinstance(value, BaseMutable)


def holds_mutables(value: Any) -> bool:
    """Whether a value is a mutable, or a list, tuple or dict that holds some."""
    return any(True for _ in _mutables_in("", value))


def _mutables_in(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if is_mutable(value):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for place, item in items:
            yield from _mutables_in(f"{name}.{place}", item)


def _named(cls: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    try:
        names = [p.name for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_POSITIONAL]
    except (TypeError, ValueError):  # written in C
        names = []
    for place, value in enumerate(args):
        yield from _mutables_in(names[place] if place < len(names) else str(place), value)
    for name, value in kwargs.items():
        yield from _mutables_in(name, value)


def _filled(value: Any, read: Any) -> Any:
    if is_mutable(value):
        return read(value)
    if isinstance(value, dict):
        return {name: _filled(item, read) for name, item in value.items()} if holds_mutables(value) else value
    if isinstance(value, list | tuple) and holds_mutables(value):
        items = [_filled(item, read) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _values(mutable: Any) -> list[Any]:
    found = at_all_choices(sources_of([mutable]), lambda: mutable.current_choice)
    return list({repr(value): value for value in found}.values())


def _options(values: list[Any]) -> list[Any]:
    """The largest and the smallest, number by number; all of them, where they have no order."""
    largest, smallest = _extreme(values, max), _extreme(values, min)
    if largest is None or smallest is None:
        return values
    return [largest] if largest == smallest else [largest, smallest]


def _extreme(values: list[Any], of: Any) -> Any:
    if all(isinstance(value, int | float) for value in values):
        return of(values)
    if all(isinstance(value, list | tuple) and len(value) == len(values[0]) for value in values):
        items = [_extreme([value[place] for value in values], of) for place in range(len(values[0]))]
        return None if None in items else type(values[0])(items)
    return None
