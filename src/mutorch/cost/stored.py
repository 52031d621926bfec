"""Which tensors a model stores, and under which choices."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from mutorch.mutables import BaseMutable, MutableModule
from mutorch.mutables.depth import MutableDepth
from mutorch.mutators import walk
from mutorch.space.decision import key

from .count import stored_tensors
from .observe import Context


def stored(model: nn.Module, decisions: Mapping[int, str]) -> list[tuple[Tensor, frozenset[Context]]]:
    """Every parameter and persistent buffer, whole, with the contexts of which each keeps a module that holds it.

    Args:
        decisions: the `id` of each module mutable to its decision's name.
    """
    holders: dict[int, set[Context]] = defaultdict(set)
    tensors: dict[int, Tensor] = {}
    at = {path: mutable for path, mutable, _ in walk(model) if id(mutable) in decisions}
    for _, module, inside in walk(model):
        # What stands in a row whose depth is searched is counted by `DeclaredSizes`.
        around = [_holding(at[path], candidate, decisions) for path, candidate in inside if path in at]
        for context in itertools.product(*around):
            for stored_in, kept in _kept(module, context, decisions):
                for tensor in stored_tensors(kept):
                    holders[id(tensor)].add(stored_in)
                    tensors[id(tensor)] = tensor
    return [(tensors[number], frozenset(held)) for number, held in holders.items()]


def _kept(module: nn.Module, context: Context, decisions: Mapping[int, str]) -> Iterable[tuple[Context, nn.Module]]:
    """What an export keeps of one module, and where: of a mutable nothing but what its choice stands for."""
    if not isinstance(module, BaseMutable):
        yield context, module
    elif isinstance(module, MutableModule) and not module.runs_anywhere:
        for choice in module.choices:
            for kept in module.chosen_module(choice).modules():
                yield (*context, (decisions[id(module)], choice)), kept


def _holding(module: nn.Module, candidate: str, decisions: Mapping[int, str]) -> Context:
    """The `(decision, choice)` pairs of which each keeps the candidate."""
    if not isinstance(module, MutableModule | MutableDepth):
        return ()
    name = decisions[id(module)]
    return tuple((name, key(choice)) for choice in module.decision_choices if module.keeps(choice, candidate))
