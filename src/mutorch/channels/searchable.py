"""Any model, searchable in width."""

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import nn

from mutorch.errors import SpaceError
from mutorch.mutables import Mutable
from mutorch.ops import DynamicState
from mutorch.ops.dynamic import STATE
from mutorch.utils import ExampleInputs

from .atoms import Atoms
from .build import SEARCH as SEARCH
from .build import Search as Search
from .build import build_, unbuild_
from .depth import Depth, make_depths_
from .memories import forget_memories_
from .observer import Observer
from .observing import observe_labels
from .rows import observe_at_each_depth
from .selection import Selector, outermost, select
from .structure import find_structure
from .trial import ObserveError as ObserveError
from .trial import try_narrower
from .widths import Widths, widths


class EmptySpaceError(SpaceError):
    """Nothing of a model can be searched."""


def searchable(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    rules: Sequence[Widths | Depth] = (),
    only: Iterable[Selector] | Selector = (),
    freeze: Iterable[Selector] | Selector = (),
    tie: Sequence[Sequence[str]] = (),
    num_trials: int = 3,
) -> nn.Module:
    """A copy of `model` in which channels, heads and hidden widths can be searched; `model` is left as it is.

    One forward on the example inputs is observed, in evaluation mode (and once more in training mode if parts run only
    there). It shows which channels belong together; each group becomes a unit, a decision on how many are kept. The copy
    computes what `model` computes until a choice is made. Its modules are of subclasses of their own classes: parameters stay
    whole, under the same names in `state_dict`, and reading one gives its active part. `Mutator(net)` sets architectures and
    `export(net, architecture)` gives the plain, smaller model.

    What feeds the model's outputs is not cut, nor what an operation without a rule touches, nor what numbers written into the
    forward count; `report(net)` says so for each module. Narrower models are then really run, and what fails is frozen.

    Args:
        model: any module; class, attributes and control flow as they are. May hold mutables, which stay searchable.
        example_inputs: what the model is called with: a tensor, a tuple of arguments, a dict of keyword arguments, or a
            function that takes the model and calls it. On the device of the model; `meta` works.
        rules: which units may have which widths, and which rows of residual blocks may be shorter: `widths(...)` and
            `depth(...)`. The last one that names a unit counts, and what none names is not searched. `[widths()]` unless
            given.
        only: modules to search, by glob over paths, type or predicate; nothing of any other module changes.
        freeze: modules of which nothing changes, neither outputs nor inputs.
        tie: paths of modules whose outputs keep the same channels, beside what the forward shows.
        num_trials: how many random narrower models are run beside the smallest.

    Errors:
        EmptySpaceError: nothing can be searched; says why.
        SpaceError: a selector or rule that names nothing, or a model that is searchable already.
        ObserveError: a narrower model fails and nothing explains why.

    Example:
        >>> import torch
        >>> from mutorch import Mutator, export
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
        >>> net = searchable(model, torch.zeros(1, 3, 8, 8), rules=[widths(ratios=(0.5, 1.0))])
        >>> Mutator(net).space.decisions[0].name, Mutator(net).space.decisions[0].choices
        ('0', (8, 16))
        >>> export(net, {"0": 8})
        Sequential(
          (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): ReLU()
          (2): Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1))
        )
    """
    for path, module in model.named_modules():
        if SEARCH in vars(module):
            what = f"{path!r}, a {type(module).__name__}," if path else f"this {type(model).__name__}"
            raise SpaceError(f"{what} is searchable already; build the model again for another space")
    net = _copied(model)
    forget_memories_(net, example_inputs)
    frozen = _frozen_modules(net, only, freeze)
    observer = Observer(Atoms())
    observer.label_parameters(net)
    observe_at_each_depth(net, observer, partial(observe_labels, net, example_inputs, observer))
    training = _observe_training(net, example_inputs, observer)
    _tie(net, observer, tie)
    of_widths = [rule for rule in rules if isinstance(rule, Widths)]
    of_depths = [rule for rule in rules if isinstance(rule, Depth)]
    depths = make_depths_(net, observer, of_depths, list(frozen))
    while True:
        structure = find_structure(net, observer, frozen)
        search = build_(net, structure, observer, of_widths if rules else [widths()], example_inputs, depths)
        failure = try_narrower(net, search, num_trials=num_trials, training=training)
        if failure is None:
            break
        observer.algebra.atoms.freeze(*failure)
        unbuild_(net)
    observer.forget()
    if not search.decisions:
        raise EmptySpaceError(_why_empty(net, search))
    return net


def _copied(model: nn.Module) -> nn.Module:
    try:
        net = copy.deepcopy(model)
    except Exception as error:
        raise ObserveError(
            f"searchable works on a copy, and this {type(model).__name__} cannot be copied by copy.deepcopy: {error}"
        ) from error
    for path, module in net.named_modules():
        if isinstance(module, Mutable):  # which does not run undecided
            module.found_at(path)
            if module.is_decision and module.current_choice is None:
                module.assign(module.default_choice)
    return net


def _why_empty(net: nn.Module, search: Search) -> str:
    reasons = Counter(reason for _, reason in search.structure.frozen).most_common(4)
    told = "; ".join(f"{reason} ({count} dimensions)" for reason, count in reasons)
    groups = search.structure.groups
    narrow = f"{len(groups)} groups of channels have only one width under the rules; " if groups else ""
    seen = sum(1 for _ in net.modules())
    return f"nothing of {type(net).__name__} can be searched: {seen} modules seen; {narrow}frozen: {told or 'nothing'}"


def _observe_training(model: nn.Module, example_inputs: ExampleInputs, observer: Observer) -> bool:
    """Observe what only runs in training, if anything does and lets itself be run so; whether it was observed."""
    reached = observer.seen_parameters
    if all(id(parameter) in reached for parameter in model.parameters()):
        return False
    blocks, observer.blocks = observer.blocks, {}  # how often a block runs in one forward is known already
    try:
        observe_labels(model, example_inputs, observer, training=True)
    except Exception:  # it needs targets, or another batch: what only runs there stays as it is
        return False
    finally:
        observer.blocks = {**observer.blocks, **blocks}
    return True


def _frozen_modules(
    model: nn.Module, only: Iterable[Selector] | Selector, freeze: Iterable[Selector] | Selector
) -> dict[str, str]:
    frozen = dict.fromkeys(select(model, freeze, what="freeze"), "named by freeze") if _given(freeze) else {}
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            frozen[path] = "compiled by torch.jit, whose code cannot read parts of its tensors"
        state = vars(module).get(STATE)
        if isinstance(state, DynamicState) and state.twins is not None:
            frozen.setdefault(path, "its own arguments are searched for")
    if _given(only):
        kept = outermost(select(model, only, what="only"))
        for path, _ in model.named_modules():
            inside = any(path == one or path.startswith(f"{one}.") or not one for one in kept)
            around = any(one.startswith(f"{path}.") or not path for one in kept)
            if not inside and not around:
                frozen[path] = "not named by only"
    return frozen


def _given(selectors: Iterable[Selector] | Selector) -> bool:
    return selectors not in ((), [], None)


def _tie(model: nn.Module, observer: Observer, tie: Sequence[Sequence[str]]) -> None:
    for paths in tie:
        found = [path for glob in paths for path in select(model, glob, what="tie")]
        weights = [(path, model.get_submodule(path)._parameters.get("weight")) for path in found]
        for path, weight in weights:
            if weight is None:
                raise SpaceError(f"tie names {path!r}, a {type(model.get_submodule(path)).__name__} without a weight")
        (first, one), *others = weights
        for path, other in others:
            if one is None or other is None or one.shape[0] != other.shape[0]:
                raise SpaceError(f"tie: {first!r} and {path!r} make different numbers of channels")
            observer.algebra.unify(observer.parameters[id(one)][0], observer.parameters[id(other)][0], "tied by hand")
