"""Rows of blocks that may be shorter already: observed at each depth."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from mutorch.mutables import BaseMutable
from mutorch.mutables.combinations import at_all_choices, sources_of
from mutorch.ops import DynamicSequential

from .observer import Observer

Assigned = list[tuple[BaseMutable[Any, Any], Any]]
"""Mutables with a choice of each."""


def observe_at_each_depth(model: nn.Module, observer: Observer, observe: Callable[[], Any]) -> None:
    """Observe with all rows at their deepest, then each at every other depth; the choices are as before afterwards.

    What follows a row gets the channels of whichever block is the last: they must be the same.
    """
    every = [module for module in model.modules() if isinstance(module, DynamicSequential)]
    rows = [row for row in every if row.get_mutable_attr("depth") is not None]
    depths = [_assignments(row) for row in rows]
    before = [(source, source.current_choice) for found in depths for source, _ in found[-1]]
    try:
        for found in depths:
            _assign(found[-1])
        observe()
        blocks = observer.blocks
        for found in depths:
            for assigned in found[:-1]:
                observer.blocks = {}  # how often a block runs in one forward is known already
                _assign(assigned)
                observe()
            _assign(found[-1])
        observer.blocks = blocks
    finally:
        _assign(before)


def _assignments(row: DynamicSequential) -> list[Assigned]:
    """For each depth of a row, choices that make it, the deepest last."""
    sources = sources_of([row.get_mutable_attr("depth")])

    def read() -> tuple[int, Assigned]:
        return row.depth, [(source, source.current_choice) for source in sources]

    found = dict(at_all_choices(sources, read))
    return [found[depth] for depth in sorted(found)]


def _assign(assigned: Iterable[tuple[BaseMutable[Any, Any], Any]]) -> None:
    for mutable, choice in assigned:
        mutable.assign(choice)
