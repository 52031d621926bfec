"""From groups of channels to units, and to modules that follow them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import nn

from mutorch.errors import SpaceError, nearest
from mutorch.mutables.base import HELD
from mutorch.mutables.depth import MutableDepth
from mutorch.ops.dynamic import DynamicState, Execution, FollowedSize, make_dynamic_, restore_
from mutorch.ops.extent import ALWAYS as NOT_DECIDED
from mutorch.ops.extent import Extent
from mutorch.utils import ExampleInputs

from .atoms import ALWAYS, Ids
from .observer import Observer
from .one_shot_unit import OneShotMutableChannelUnit
from .structure import Components, Structure, tensor_dims
from .unit import MutableChannelUnit
from .widths import Widths

SEARCH = "channel_search"
"""The attribute of a searchable model that holds its `Search`."""


@dataclass(slots=True)
class Search:
    """What `searchable` found, kept with the model: for reports, costs and rankings.

    Attributes:
        structure: which channels belong together.
        observer: what the observed forward taught.
        execution: how the model's dynamic modules compute.
        units: one for each decision.
        group_units: the number of a group in `structure.groups` to its unit; groups that no rule names have none.
        example_inputs: what the model was observed on.
        depths: one for each row of blocks that may be shorter.
        is_masked_right: whether modes `"slice"` and `"mask"` were compared, and agree.
    """

    structure: Structure
    observer: Observer
    execution: Execution
    units: list[MutableChannelUnit]
    group_units: dict[int, MutableChannelUnit]
    example_inputs: ExampleInputs
    depths: list[MutableDepth]
    is_masked_right: bool = False

    @property
    def decisions(self) -> list[MutableChannelUnit | MutableDepth]:
        """Everything that decides: units, then depths."""
        return [*self.units, *self.depths]

    def __getstate__(self) -> tuple[Any, ...]:
        # A function that calls the model is often a lambda, which does not pickle; `check` asks for inputs then.
        called = callable(self.example_inputs)
        return tuple(None if f.name == "example_inputs" and called else getattr(self, f.name) for f in fields(self))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for one, value in zip(fields(self), state, strict=True):
            setattr(self, one.name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Search":
        # What was learned is not changed any more, and is large.
        return Search(
            self.structure,
            self.observer,
            copy.deepcopy(self.execution, memo),
            copy.deepcopy(self.units, memo),
            copy.deepcopy(self.group_units, memo),
            self.example_inputs,
            copy.deepcopy(self.depths, memo),
            self.is_masked_right,
        )


def build_(
    model: nn.Module,
    structure: Structure,
    observer: Observer,
    rules: Sequence[Widths],
    example_inputs: ExampleInputs,
    depths: Sequence[MutableDepth] = (),
) -> Search:
    """Make units for what the rules name, and the model's modules dynamic, in place."""
    units = _units(structure, rules)
    extents = _Extents(structure, units)
    execution = Execution()
    states: dict[int, DynamicState] = {}

    def state_of(module: nn.Module) -> DynamicState:
        return states.setdefault(id(module), DynamicState(execution))

    tensors = _cut_tensors(model, structure, extents)
    for module in model.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if id(tensor) in tensors:
                state_of(module).tensors[name] = tuple(tensors[id(tensor)])
        for name in sorted(observer.memories.get(id(module), ())):
            state_of(module).memories[name] = -1, {}
    for rule in structure.sizes:
        followed = [(extents.of(components, size), size) for components, size in rule.dims]
        kept = tuple(extent for extent, _ in followed if extent is not None)
        if kept:
            factor = rule.factor * int(np.prod([size for extent, size in followed if extent is None], dtype=np.int64))
            state = state_of(rule.module)
            state.sizes[rule.attribute] = (
                *state.sizes.get(rule.attribute, ()),
                FollowedSize(kept, factor, rule.index),
            )
    _add_statistics(model, observer, extents, state_of)
    for module in list(model.modules()):
        if id(module) in states:
            make_dynamic_(module, states[id(module)])
    search = Search(structure, observer, execution, list(units.values()), units, example_inputs, list(depths))
    model.__dict__[SEARCH] = search
    model.__dict__[HELD] = search.decisions
    return search


def unbuild_(model: nn.Module) -> None:
    """Undo `build_`."""
    for module in model.modules():
        restore_(module)
    for name in (SEARCH, HELD):
        model.__dict__.pop(name, None)


def _units(structure: Structure, rules: Sequence[Widths]) -> dict[int, MutableChannelUnit]:
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
            near = nearest(rule.pattern, [group.name for group in structure.groups])
            raise SpaceError(f"widths names {rule.pattern!r}, which is no unit of the model; {near}")
    return units


class _Extents:
    """One extent for each distinct dimension; units know those that they decide."""

    def __init__(self, structure: Structure, units: Mapping[int, MutableChannelUnit]) -> None:
        self._structure = structure
        self._units = units
        self._made: dict[tuple[bytes, ...], Extent] = {}

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
        own = [self._component(component, local) for component in components]
        extent = Extent(size, channels, [(which, index) for which, index in own if (which != NOT_DECIDED).any()])
        self._made[key] = extent
        for number in numbers:
            self._units[number].extents.append(extent)
        return extent

    def _component(self, component: Ids, local: Ids) -> tuple[Ids, Ids]:
        group = np.where(component == ALWAYS, -1, self._structure.group_of[component])
        return local[group], self._structure.index_of[component]


def _cut_tensors(model: nn.Module, structure: Structure, extents: _Extents) -> dict[int, list[tuple[int, Extent]]]:
    """By id of a tensor, the dimensions of it that units decide."""
    found: dict[int, list[tuple[int, Extent]]] = {}
    for place, number in tensor_dims(model):
        extent = extents.of(structure.dims.get(place, ()), place.size)
        if extent is not None:
            found.setdefault(number, []).append((place.dim, extent))
    return found


def _add_statistics(
    model: nn.Module, observer: Observer, extents: _Extents, state_of: Callable[[nn.Module], DynamicState]
) -> None:
    """Tell modules that average over channels which ones: in mask mode, the others must not count."""
    modules = dict(model.named_modules())
    for (_, path), places in observer.averaged.items():
        for place, dims in places.items():
            components = tuple(observer.algebra.resolve(dims[0]))
            extent = extents.of(components, len(components[0])) if components else None
            if extent is not None:
                state_of(modules[path]).statistics[place] = extent
