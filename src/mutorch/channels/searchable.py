"""Any model, searchable in width."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import nn

from mutorch.errors import MutorchError, SpaceError, nearest
from mutorch.mutables.base import HELD
from mutorch.mutables.clock import tick
from mutorch.ops.dynamic import DynamicState, Execution, FollowedSize, make_dynamic_, restore_
from mutorch.ops.extent import ALWAYS as NOT_DECIDED
from mutorch.ops.extent import Extent
from mutorch.space import random_at
from mutorch.utils import ExampleInputs

from .atoms import ALWAYS, Atoms, Ids
from .dims import LabelMismatchError
from .observer import Observer, observe_labels
from .one_shot_unit import OneShotMutableChannelUnit
from .selection import Selector, outermost, select
from .structure import Components, Structure, find_structure, tensor_dims
from .unit import MutableChannelUnit
from .widths import Widths, widths

SEARCH = "channel_search"
"""The attribute of a searchable model that holds its `Search`."""


class EmptySpaceError(SpaceError):
    """Nothing of a model can be searched."""


class ObserveError(MutorchError, RuntimeError):
    """A model that cannot be observed, or that its own forward does not let be cut."""


@dataclass(slots=True)
class Search:
    """What `searchable` found, kept with the model: for reports and costs."""

    structure: Structure
    observer: Observer
    execution: Execution
    units: list[MutableChannelUnit]
    group_units: dict[int, MutableChannelUnit]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Search":
        copied = (copy.deepcopy(part, memo) for part in (self.execution, self.units, self.group_units))
        return Search(self.structure, self.observer, *copied)


def searchable(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    rules: Sequence[Widths] = (),
    only: Iterable[Selector] | Selector = (),
    freeze: Iterable[Selector] | Selector = (),
    tie: Sequence[Sequence[str]] = (),
    num_trials: int = 3,
) -> nn.Module:
    """A copy of `model` whose widths can be searched."""
    if SEARCH in vars(model):
        raise SpaceError(f"{type(model).__name__} is searchable already")
    net = copy.deepcopy(model)
    frozen = _frozen_modules(net, only, freeze)
    observer = Observer(Atoms())
    observer.label_parameters(net)
    observe_labels(net, example_inputs, observer)
    training = _observe_training(net, example_inputs, observer)
    _tie(net, observer, tie)
    while True:
        structure = find_structure(net, observer, frozen)
        search = _build(net, structure, observer, rules or [widths()])
        failure = _try(net, search, example_inputs, num_trials, training)
        if failure is None:
            break
        observer.algebra.atoms.freeze(*failure)
        for module in net.modules():
            restore_(module)
    return net


def _observe_training(model: nn.Module, example_inputs: ExampleInputs, observer: Observer) -> bool:
    """Observe what only runs in training, if anything does and lets itself be run so; whether it was observed."""
    reached = observer.seen_parameters
    if all(id(parameter) in reached for parameter in model.parameters()):
        return False
    try:
        observe_labels(model, example_inputs, observer, training=True)
    except Exception:  # it needs targets, or another batch: what it holds stays as it is
        return False
    return True


def _frozen_modules(
    model: nn.Module, only: Iterable[Selector] | Selector, freeze: Iterable[Selector] | Selector
) -> dict[str, str]:
    frozen = dict.fromkeys(select(model, freeze, what="freeze"), "freeze") if _given(freeze) else {}
    if _given(only):
        kept = outermost(select(model, only, what="only"))
        for path, _ in model.named_modules():
            inside = any(path == k or path.startswith(f"{k}.") or not k for k in kept)
            around = any(k.startswith(f"{path}.") or not path for k in kept)
            if not inside and not around:
                frozen[path] = "only"
    return frozen


def _given(selectors: Iterable[Selector] | Selector) -> bool:
    return selectors not in ((), [], None)


def _tie(model: nn.Module, observer: Observer, tie: Sequence[Sequence[str]]) -> None:
    for paths in tie:
        dims = []
        for path in paths:
            (found,) = select(model, path, what="tie")[:1]
            weight = model.get_submodule(found)._parameters.get("weight")
            if weight is None:
                raise SpaceError(f"tie names {found!r}, a {type(model.get_submodule(found)).__name__} without a weight")
            dims.append((found, observer.parameters[id(weight)][0], int(weight.shape[0])))
        for path, dim, size in dims[1:]:
            if size != dims[0][2]:
                raise SpaceError(f"tie: {dims[0][0]!r} makes {dims[0][2]} channels and {path!r} makes {size}")
            observer.algebra.unify(dims[0][1], dim, "tied by hand")


# ---- building ----------------------------------------------------------------------------------------------------------


def _build(model: nn.Module, structure: Structure, observer: Observer, rules: Sequence[Widths]) -> Search:
    """Units for what the rules name, and dynamic modules that follow them."""
    units: dict[int, MutableChannelUnit] = {}
    used: set[str] = set()
    for number, group in enumerate(structure.groups):
        matching = [rule for rule in rules if fnmatchcase(group.name, rule.pattern)]
        used |= {rule.pattern for rule in matching}
        choices = matching[-1].choices(group.num_channels, group.width) if matching else []
        if len(choices) > 1:
            units[number] = OneShotMutableChannelUnit(group.num_channels, choices, "number")
            units[number].name = group.name
    for rule in rules:
        if rule.pattern not in used and structure.groups:
            raise SpaceError(
                f"widths names {rule.pattern!r}, which is no unit; {nearest(rule.pattern, [g.name for g in structure.groups])}"
            )
    extents = _Extents(structure, units)
    execution = Execution()
    tensors: dict[int, list[tuple[int, Extent]]] = {}
    dims = dict(structure.dims)
    for place, number in tensor_dims(model):
        extent = extents.of(dims.get(place, ()), place.size)
        if extent is not None:
            tensors.setdefault(number, []).append((place.dim, extent))
    states: dict[int, DynamicState] = {}
    for module in model.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if id(tensor) in tensors:
                state = states.setdefault(id(module), DynamicState(execution))
                state.tensors[name] = tuple(tensors[id(tensor)])
    for rule in structure.sizes:
        followed = [extents.of(components, size) for components, size in rule.dims]
        factor = rule.factor
        for extent, (_, size) in zip(followed, rule.dims, strict=True):
            factor *= size if extent is None else 1
        kept = tuple(extent for extent in followed if extent is not None)
        if kept:
            state = states.setdefault(id(rule.module), DynamicState(execution))
            size = FollowedSize(kept, factor, rule.index)
            state.sizes[rule.attribute] = (*state.sizes.get(rule.attribute, ()), size)
    for module in list(model.modules()):
        for name in sorted(observer.memories.get(id(module), ())):
            states.setdefault(id(module), DynamicState(execution)).memories[name] = -1, {}
        if id(module) in states:
            make_dynamic_(module, states[id(module)])
    made = list(units.values())
    search = Search(structure, observer, execution, made, units)
    model.__dict__[SEARCH] = search
    model.__dict__[HELD] = made
    return search


class _Extents:
    """One extent for each distinct dimension; units know those that they decide."""

    def __init__(self, structure: Structure, units: dict[int, MutableChannelUnit]) -> None:
        self._structure = structure
        self._units = units
        self._made: dict[Any, Extent] = {}

    def of(self, components: Components, size: int) -> Extent | None:
        """The extent of a dimension; `None` where no unit decides anything along it."""
        key = tuple(component.tobytes() for component in components)
        if key in self._made:
            return self._made[key]
        numbers = [number for number in self._structure.groups_in(components) if number in self._units]
        if not numbers:
            return None
        local = np.full(len(self._structure.groups) + 1, NOT_DECIDED, dtype=np.int64)
        local[numbers] = np.arange(len(numbers))
        channels = [self._units[number].mutable_channel for number in numbers]
        extent = Extent(size, channels, [self._component(component, local) for component in components])
        self._made[key] = extent
        for number in numbers:
            self._units[number].extents.append(extent)
        return extent

    def _component(self, component: Ids, local: Ids) -> tuple[Ids, Ids]:
        group = np.where(component == ALWAYS, -1, self._structure.group_of[component])
        return local[group], self._structure.index_of[component]


# ---- trying ------------------------------------------------------------------------------------------------------------


def _try(
    net: nn.Module, search: Search, example_inputs: ExampleInputs, num_trials: int, training: bool
) -> tuple[Ids, str] | None:
    """Run small and random subnets with the labels that were learned; what does not fit is what must be frozen."""
    units = search.units
    try:
        for trial in range(num_trials + 1 if units else 0):
            for unit in units:
                choices = list(unit.choices)
                unit.assign(choices[0] if trial == 0 else random_at(trial, "trial", unit.name).choice(choices))
            for mode in (False, True) if training else (False,):
                failure = _trial(net, search, example_inputs, mode)
                if failure is not None:
                    return failure
    finally:
        for unit in units:
            unit.assign(unit.default_choice)
    return None


def _trial(net: nn.Module, search: Search, example_inputs: ExampleInputs, training: bool) -> tuple[Ids, str] | None:
    checker = Observer(search.observer.algebra.atoms, checking=True)
    checker.parameters = search.observer.parameters
    tick()  # active parts that an earlier trial read have no labels here
    try:
        observe_labels(net, example_inputs, checker, training=training)
    except Exception as error:
        structure = search.structure
        path = checker.module
        atoms = error.atoms if isinstance(error, LabelMismatchError) else None
        if atoms is None or not len(atoms):
            found = [checker.algebra.atoms_of(dim) for tensor in checker.blamed for dim in checker.labels(tensor)]
            atoms = np.concatenate([*found, np.empty(0, dtype=np.int64)])
        groups = structure.groups_in([atoms[atoms < len(structure.group_of)]])
        groups = [number for number in groups if number in search.group_units]
        if not groups:
            groups = [n for n, g in enumerate(structure.groups) if any(p.module.startswith(path) for p, _ in g.places)]
            groups = [number for number in groups if number in search.group_units]
        if not groups:
            raise ObserveError(f"the model runs at full width, but not narrower: {error}") from error
        frozen = np.concatenate([structure.groups[number].atoms for number in groups])
        return frozen, f"a narrower model fails in {path!r} ({type(error).__name__}: {str(error)[:120]})"
    return None
