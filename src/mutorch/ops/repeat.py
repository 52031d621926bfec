"""A row of blocks, of which the first so many run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables import BaseMutable, MutableModule, OneShotMutableValue
from mutorch.mutables.base import HELD
from mutorch.mutables.combinations import at_all_choices, sources_of
from mutorch.mutables.held import RowDepth

from .op import EXTENTS
from .sequential import DynamicSequential
from .static import MUTABLES

Blocks = nn.Module | Callable[[int], nn.Module] | Sequence[nn.Module]
Depth = int | tuple[int, int] | list[int] | BaseMutable[Any, Any]


class Repeat(DynamicSequential):
    """The first `depth` of a row of blocks, one after the other; `export` leaves an `nn.Sequential` of these.

    At depth 0, it gives its input. What is decided inside a block beyond the depth does not matter.

    Args:
        blocks: a module, which stands first and is copied for the others (they read the same value choices; of other
            choices, those with a label are one decision); a function that makes the block of a place, from 0; or a list of
            all blocks.
        depth: a number; `(low, high)`, both included; a list of numbers; or a mutable, or an expression of some.
        label: the name of the decision; the path of the row and `.depth` unless given. A mutable has its own.

    Errors:
        ChoiceError: a depth below 0, or that is no whole number; a list with more or fewer blocks than the deepest.
        TypeError: blocks that are no modules.

    Example:
        >>> row = Repeat(lambda place: nn.Linear(4, 4), depth=(1, 3))
        >>> len(row), row.depth
        (3, 3)
        >>> from mutorch import Mutator, export
        >>> net = nn.Sequential(row, nn.ReLU())
        >>> Mutator(net).space.decisions[0].name, len(export(net, {"0.depth": 2})[0])
        ('0.depth', 2)
    """

    def __init__(self, blocks: Blocks, depth: Depth, *, label: str | None = None) -> None:
        mutable = _mutable(depth, label)
        depths = [depth] if mutable is None else at_all_choices(sources_of([mutable]), lambda: mutable.current_choice)
        super().__init__(*_built(blocks, _deepest(depths, depth)))
        if mutable is not None:
            row = RowDepth(mutable, "depth")
            self.__dict__[HELD] = [row]
            self.register_mutable_attr("depth", row)

    def running_modules(self) -> list[nn.Module]:
        """Those that run now."""
        held = self.__dict__.get(HELD)
        blocks = [block for name, block in self._modules.items() if name != MUTABLES and block is not None]
        return blocks if held is None else blocks[: int(held[0].current_choice)]

    def extras(self) -> tuple[str, ...]:
        return (*super().extras(), EXTENTS, HELD)


def _mutable(depth: Depth, label: str | None) -> BaseMutable[Any, Any] | None:
    """What decides the depth; `None` for a number."""
    if isinstance(depth, BaseMutable):
        if label is not None:
            raise ChoiceError(
                f"the depth {depth!r} has its own name; leave label={label!r} out, or give it to the mutable"
            )
        return depth
    if isinstance(depth, tuple):
        if len(depth) != 2 or not all(_is_count(end) for end in depth) or depth[0] > depth[1]:
            raise ChoiceError(
                f"a tuple as depth is (low, high), both included, got {depth!r}; a list may be of any length"
            )
        return OneShotMutableValue(list(range(depth[0], depth[1] + 1)), alias=label)
    return OneShotMutableValue(depth, alias=label) if isinstance(depth, list) else None


def _deepest(depths: Sequence[Any], given: object) -> int:
    wrong = [depth for depth in depths if not _is_count(depth)]
    if wrong:
        raise ChoiceError(f"a depth is a whole number from 0, got {wrong[0]!r} in {given!r}")
    return int(max(depths))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _built(blocks: Blocks, number: int) -> list[nn.Module]:
    if isinstance(blocks, nn.Module) and not isinstance(blocks, nn.ModuleList):
        made = [blocks, *(copy.deepcopy(blocks, _values(blocks)) for _ in range(number - 1))][:number]
    elif isinstance(blocks, Sequence | nn.ModuleList):
        made = list(blocks)
        if len(made) != number:
            raise ChoiceError(f"a depth of at most {number} needs a list of {number} blocks, got {len(made)}")
    elif callable(blocks):
        made = [blocks(place) for place in range(number)]
    else:
        raise TypeError(f"blocks are a module, a function of the place, or a list, got {type(blocks).__name__}")
    for place, block in enumerate(made):
        if not isinstance(block, nn.Module):
            raise TypeError(f"block {place} must be a module, got {type(block).__name__}")
    return made


def _values(block: nn.Module) -> dict[int, Any]:
    """What a copy of the block shares with it, as a memo of `copy.deepcopy`."""
    found = [module for module in block.modules() if isinstance(module, BaseMutable)]
    found += [held for module in block.modules() for held in vars(module).get(HELD, ())]
    return {id(one): one for one in sources_of(found) if not isinstance(one, MutableModule)}
