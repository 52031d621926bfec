"""Rows of residual blocks, of which the last may be left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from mutorch.errors import SpaceError, nearest
from mutorch.mutables.depth import MutableDepth
from mutorch.ops import DynamicSequential
from mutorch.ops.skippable import make_skippable_

from .observer import BlockCall, Observer


@dataclass(frozen=True, slots=True)
class Depth:
    """Which rows of blocks may be how deep; `depth` makes one."""

    pattern: str
    counts: tuple[int, ...] | None


def depth(pattern: str = "*", *, counts: Sequence[int] | None = None) -> Depth:
    """A rule for `searchable`: rows of residual blocks may be shorter.

    A row is an `nn.Sequential` or `nn.ModuleList`. Its last blocks may be left out one after the other, as long as a block
    gives a tensor with the channels of the one it is given, which is what a residual connection makes of it. The first
    block of a stage, which changes the resolution, always stays. An exported model does not have the blocks that are left out.

    Args:
        pattern: a glob over the paths of rows.
        counts: how many blocks may be computed; everything that the row allows unless given. All blocks are always allowed.

    Errors:
        SpaceError: counts that are no positive integers; in `searchable`, a pattern that names no row that can be shorter.

    Example:
        >>> depth("layer*")
        Depth(pattern='layer*', counts=None)
    """
    for count in counts or ():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise SpaceError(f"a count of depth({pattern!r}) must be an int of at least 1, got {count!r}")
    return Depth(pattern, None if counts is None else tuple(counts))


def make_depths_(
    model: nn.Module, observer: Observer, rules: Sequence[Depth], frozen: Sequence[str]
) -> list[MutableDepth]:
    """Make the blocks that the rules name skippable, in place, and give their decisions."""
    every = {path: row for path, row in model.named_modules() if isinstance(row, nn.Sequential | nn.ModuleList)}
    # Those that are declared dynamic have a depth of their own.
    rows = {path: row for path, row in every.items() if not isinstance(row, DynamicSequential)}
    shortest = {path: found for path, row in rows.items() if (found := _shortest(path, row, observer)) is not None}
    made: list[MutableDepth] = []
    used: set[str] = set()
    for path, fewest in shortest.items():
        matching = [rule for rule in rules if fnmatchcase(path, rule.pattern)]
        if not matching or any(path == one or path.startswith(f"{one}.") for one in frozen):
            continue
        used |= {rule.pattern for rule in matching}
        total = len(rows[path])
        wanted = matching[-1].counts or range(fewest, total + 1)
        choices = sorted({count for count in wanted if fewest <= count <= total} | {total})
        if len(choices) == 1:
            continue
        decision = MutableDepth(choices, name=f"{path}.depth".lstrip("."))
        for place, block in enumerate(rows[path].children()):
            if place >= choices[0]:
                make_skippable_(block, decision, place)
        made.append(decision)
    for rule in rules:
        if rule.pattern not in used:
            raise SpaceError(
                f"depth names {rule.pattern!r}, which is no row of residual blocks; {nearest(rule.pattern, shortest)}"
            )
    return made


def _shortest(path: str, row: nn.Module, observer: Observer) -> int | None:
    """How many blocks of a row must stay; `None` where none can go."""
    names = list(row._modules)
    must = len(names)
    while must > 1 and _is_residual(observer.blocks.get(f"{path}.{names[must - 1]}".lstrip(".")), observer):
        must -= 1
    return must if must < len(names) else None


def _is_residual(call: BlockCall | None, observer: Observer) -> bool:
    """Whether a block could be replaced by its input: called once, and the same channels come out that went in."""
    if call is None or call.times != 1 or not call.computes or call.given is None or call.made is None:
        return False
    if call.given_shape != call.made_shape:
        return False
    pairs = zip(call.given, call.made, strict=True)
    sides = [[[part.tobytes() for part in observer.algebra.resolve(dim)] for dim in pair] for pair in pairs]
    return all(sorted(one) == sorted(other) for one, other in sides)
