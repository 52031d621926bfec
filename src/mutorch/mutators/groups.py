"""The mutables of a model, found by their paths and grouped into decisions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from mutorch.errors import SpaceError, StateError, nearest
from mutorch.mutables import (
    BaseMutable,
    DerivedMutable,
    InputChoice,
    Mutable,
    MutableChannelContainer,
    MutableModule,
    MutableScope,
    OneShotMutableValue,
    Require,
)
from mutorch.mutables.base import HELD
from mutorch.mutables.depth import SKIPPED_BY, MutableDepth
from mutorch.mutables.held import RowDepth
from mutorch.space import Decision, SearchSpace

from .requirements import Rule, as_constraint, distinct, only_inside

ROOT = "root"
"""The name of a mutable that is the whole model, and so has no path."""
CustomGroups = Sequence[Sequence[str]] | Mapping[str, Sequence[str]]
"""Mutables to decide together, by path or alias: lists (named by their first member), or name to list."""


@dataclass(frozen=True, slots=True)
class Place:
    """One mutable where it stands.

    Attributes:
        path: the module's qualified name in the model.
        inside: the `(path of a module mutable, candidate)` pairs of the candidates that it sits in, outermost first.
    """

    path: str
    mutable: BaseMutable[Any, Any]
    inside: tuple[tuple[str, Any], ...]

    @property
    def name(self) -> str:
        """What the mutable is called unless a custom group renames it: its alias, else its path."""
        return self.mutable.alias or self.path or ROOT


def find_places(model: nn.Module) -> list[Place]:
    """Every source mutable of the model at every place where it stands, in the order of `named_modules`.

    A derived mutable stands for those of its sources that are no modules of the model themselves, under its own path. A
    mutable inside another one that is no module mutable (a channel inside a unit) belongs to that one, at all its places.
    A container of channels stands for those of its members that are no modules of the model.
    """
    places = [Place(path, m, inside) for path, m, inside in walk(model) if isinstance(m, BaseMutable)]
    in_tree = {id(place.mutable) for place in places}
    owners = _owners(model)
    found: list[Place] = []
    for place in places:
        if id(place.mutable) in owners:
            continue
        if not isinstance(place.mutable, DerivedMutable | MutableChannelContainer):
            found.append(place)
            continue
        loose = [source for source in _sources(place.mutable) if id(source) not in in_tree and id(source) not in owners]
        for number, source in enumerate(loose):
            path = place.path if len(loose) == 1 else f"{place.path}.{number}"
            found.append(Place(path, source, place.inside))
    return found


def group(
    model: nn.Module, custom_groups: CustomGroups | None = None, constraints: Iterable[Rule] = ()
) -> tuple[SearchSpace, dict[str, list[BaseMutable[Any, Any]]]]:
    """The search space of a model, and which mutables each decision sets. The model is only read.

    Decisions are named by custom group, else by alias, else by the path of the module (`root` for the model itself), and
    ordered by first appearance. Every `Require` of the model is a constraint of the space.

    Args:
        constraints: further ones, over mutables of the model or over names of decisions.

    Errors:
        SpaceError: no mutable at all; members of one group with different choices; a custom group that names nothing
            in the model, or a mutable twice; two groups with one name; a constraint on something else than decisions of
            the model, or constraints that no architecture obeys.
        StateError: a candidate is a lazy module that never ran.
    """
    places = [place for place in find_places(model) if place.mutable.is_decision]
    if not places:
        seen = sum(1 for _ in model.modules())
        raise SpaceError(
            f"the model has no mutables: {seen} modules seen in {type(model).__name__}, none is a OneShotMutableOP, a "
            "LayerChoice, a MutableValue or another BaseMutable that lists its choices; put one where something may change"
        )
    names = _names(places, custom_groups)
    members: dict[str, dict[int, BaseMutable[Any, Any]]] = {}
    for place in places:
        members.setdefault(names[id(place.mutable)], {})[id(place.mutable)] = place.mutable
    groups = {name: list(found.values()) for name, found in members.items()}
    by_path = {place.path: names[id(place.mutable)] for place in places}
    by_decision = {name: found[0] for name, found in groups.items()}
    running = _running_blocks(model, names)

    def around_of(steps: Iterable[tuple[str, Any]]) -> list[tuple[str, list[tuple[str, Any] | None]]]:
        around: list[tuple[str, list[tuple[str, Any] | None]]] = []
        for path, choice in steps:
            if (path, choice) in running:
                runs = running[path, choice].items()
                around += [(decision, [(decision, kept) for kept in choices]) for decision, choices in runs]
            elif path in by_path:
                around.append((by_path[path], _holding(by_decision, by_path[path], choice)))
        return around

    conditions: dict[str, list[tuple[str, Any] | None]] = {}
    for mutable, steps in _reads(model):
        if id(mutable) not in names:  # no decision
            continue
        name = names[id(mutable)]
        around = around_of(steps)
        if name not in dict(around):  # a decision nested in itself: the outer place says when it matters
            # Only the innermost candidate is asked about: whether that one matters is its own decision's condition.
            conditions.setdefault(name, []).extend(around[-1][1] if around else [None])
    rules = [
        only_inside(as_constraint(module.expression, names), around_of(steps))
        for _, module, steps in walk(model)
        if isinstance(module, Require)
    ]
    rules += [as_constraint(rule, names) for rule in constraints]
    decisions = [_decision(name, groups[name], conditions[name]) for name in groups]
    return SearchSpace(decisions, distinct(rules)), groups


def walk(
    module: nn.Module,
    path: str = "",
    inside: tuple[tuple[str, Any], ...] = (),
    depths: dict[int, str] | None = None,
) -> Iterator[tuple[str, nn.Module, tuple[tuple[str, Any], ...]]]:
    """Every module with its path and the candidates that it sits in; a module that stands at two places comes twice.

    Mutables that a module holds outside the tree of modules (the units of a searchable model) come after it, by name.
    """
    depths = {} if depths is None else depths
    skipped_by = vars(module).get(SKIPPED_BY)
    if skipped_by is not None and id(skipped_by[0]) in depths:
        inside = (*inside, (depths[id(skipped_by[0])], str(skipped_by[1])))
    yield path, module, inside
    row = None
    for held in vars(module).get(HELD, ()):
        depths[id(held)] = f"{path}.{held.name}" if path else held.name
        row = depths[id(held)] if isinstance(held, RowDepth) else row
        yield depths[id(held)], held, inside
    candidates: object = module.candidates if isinstance(module, MutableModule) else None
    for name, child in module._modules.items():
        if child is None:
            continue
        child_path = f"{path}.{name}" if path else name
        if isinstance(child, nn.ModuleDict) and child is candidates:
            for choice, candidate in child.items():
                yield from walk(candidate, f"{child_path}.{choice}", (*inside, (path, choice)), depths)
        else:
            label = module.candidate_at(name) if isinstance(module, MutableModule) else None
            within = inside if label is None else (*inside, (path, label))
            if row is not None and name.isdigit():
                within = (*inside, (row, name))
            yield from walk(child, child_path, within, depths)


def tell_paths(model: nn.Module) -> None:
    """Tell every `Mutable` where it stands; one that stands at several places, the first.

    One that a mutator with callbacks decides was told already: its keys stay while that one does.
    """
    told: set[int] = set()
    for path, module, _ in walk(model):
        if isinstance(module, Mutable) and module.mutator is None and id(module) not in told:
            told.add(id(module))
            module.found_at(path)


def _sources(mutable: BaseMutable[Any, Any]) -> list[BaseMutable[Any, Any]]:
    """What a mutable's state comes from: itself, unless it is derived or a container."""
    if isinstance(mutable, DerivedMutable):
        return list(mutable.sources)
    if isinstance(mutable, MutableChannelContainer):
        return list(dict.fromkeys(source for member in mutable.registered.values() for source in _sources(member)))
    return [mutable]


def _owners(model: nn.Module) -> dict[int, BaseMutable[Any, Any]]:
    """The outermost mutable that each owned mutable sits in, by the id of the owned one."""
    owners: dict[int, BaseMutable[Any, Any]] = {}
    for _, module, _ in walk(model):  # from the outside in, so that the first owner found is the outermost
        holds_others = isinstance(module, MutableModule | MutableScope)
        if isinstance(module, BaseMutable) and not holds_others and id(module) not in owners:
            for part in module.modules():
                if isinstance(part, BaseMutable) and part is not module:
                    owners.setdefault(id(part), module)
    return owners


def _reads(model: nn.Module) -> Iterator[tuple[BaseMutable[Any, Any], tuple[tuple[str, Any], ...]]]:
    """Every source mutable with the candidates that it matters in: where it stands, or where one derived from it does.

    What is read of an owned mutable is read of its owner.
    """
    owners = _owners(model)
    for _, module, inside in walk(model):
        if isinstance(module, BaseMutable):
            for source in _sources(module):
                yield owners.get(id(source), source), inside


def _running_blocks(model: nn.Module, names: Mapping[int, str]) -> dict[tuple[str, Any], dict[str, list[Any]]]:
    """For each block of a row that does not always run, the decisions and choices of which one must hold for it to run.

    Where a depth is computed from several decisions, the one that says most.
    """
    rows = {path: module for path, module, _ in walk(model) if isinstance(module, RowDepth)}
    found: dict[tuple[str, Any], dict[str, list[Any]]] = {}
    for path, place in {step for _, _, inside in walk(model) for step in inside if step[0] in rows}:
        row = rows[path]
        runs: dict[str, list[Any]] = {}
        decided = {names[id(source)]: source for source in row.sources if id(source) in names}
        for decision, source in decided.items():
            kept = row.running(place, source)
            if len(kept) < len(source.choices):
                runs[decision] = kept
        fewest = min(runs, key=lambda decision: len(runs[decision]), default=None)
        found[path, place] = {} if fewest is None else {fewest: runs[fewest]}
    return found


def _holding(
    mutables: Mapping[str, BaseMutable[Any, Any]], decision: str, candidate: str
) -> list[tuple[str, Any] | None]:
    """The `(decision, choice)` pairs under which a candidate is in the model."""
    mutable = mutables[decision]
    return [
        (decision, choice)
        for choice in mutable.decision_choices
        if isinstance(mutable, MutableModule | MutableDepth) and mutable.keeps(choice, candidate)
    ]


def _names(places: Sequence[Place], custom_groups: CustomGroups | None) -> dict[int, str]:
    """The decision's name of every mutable, by the mutable's id."""
    own: dict[int, str] = {}
    legal: dict[str, dict[int, BaseMutable[Any, Any]]] = {}
    for place in places:
        mutable = place.mutable
        own.setdefault(id(mutable), place.name)
        for key in dict.fromkeys((place.path or ROOT, place.name)):
            legal.setdefault(key, {})[id(mutable)] = mutable
    custom = _custom_names(legal, custom_groups or {})
    for place in places:
        name, alias = own[id(place.mutable)], place.mutable.alias
        if id(place.mutable) not in custom and name in custom.values():
            raise SpaceError(f"custom group {name!r} has the name of another decision; give it one of its own")
        if alias is None and len({m.alias for m in legal[place.path or ROOT].values()}) > 1:
            raise SpaceError(f"alias {place.path!r} is also the path of another mutable; rename the alias")
    return own | custom


def _custom_names(
    legal: Mapping[str, Mapping[int, BaseMutable[Any, Any]]], custom_groups: CustomGroups
) -> dict[int, str]:
    names: dict[int, str] = {}
    for name, keys in _named(custom_groups):
        for key in keys:
            if key not in legal:
                raise SpaceError(f"custom group {name!r} names {key!r}, which is no mutable; {nearest(key, legal)}")
            for mutable in legal[key]:
                if mutable in names:
                    raise SpaceError(f"custom group {name!r} takes {key!r}, which is in {names[mutable]!r} already")
                names[mutable] = name
    return names


def _named(custom_groups: CustomGroups) -> Iterator[tuple[str, Sequence[str]]]:
    named = custom_groups.items() if isinstance(custom_groups, Mapping) else (("", keys) for keys in custom_groups)
    for name, keys in named:
        if isinstance(keys, str) or not keys:
            raise SpaceError(f"a custom group is a non-empty list of paths or aliases, got {keys!r}")
        yield name or keys[0], keys


def _decision(
    name: str, mutables: Sequence[BaseMutable[Any, Any]], conditions: Sequence[tuple[str, Any] | None]
) -> Decision:
    first = mutables[0]
    for other in mutables[1:]:
        if list(other.decision_choices) != list(first.decision_choices):
            raise SpaceError(
                f"decision {name!r} is shared by mutables with different choices: {list(first.decision_choices)} "
                f"and {list(other.decision_choices)}; give them different aliases or the same choices"
            )
    always = None in conditions
    largest, smallest = _extremes(first)
    return Decision(
        name=name,
        choices=tuple(first.decision_choices),
        default=first.default_choice,
        largest=largest,
        smallest=smallest,
        when=() if always else tuple(dict.fromkeys(c for c in conditions if c is not None)),
    )


def _extremes(mutable: BaseMutable[Any, Any]) -> tuple[Any, Any]:
    """The candidates with the most and the fewest parameters; values order themselves."""
    if isinstance(mutable, InputChoice):
        return mutable.extreme_choices
    if isinstance(mutable, OneShotMutableValue):  # whose values are sorted, lists too
        return mutable.max_choice, mutable.min_choice
    if not isinstance(mutable, MutableModule) or not mutable.candidates:
        return None, None
    lazy = [name for name, module in mutable.candidates.items() if any(map(is_lazy, module.parameters()))]
    if lazy:
        raise StateError(
            f"candidate {lazy[0]!r} has parameters without a size yet (a lazy module); run every candidate once before, "
            "as the model does while no choice is made"
        )
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in mutable.candidates.items()}
    kept = [sum(sizes[name] for name in sizes if mutable.keeps(choice, name)) for choice in mutable.decision_choices]
    choices = list(mutable.decision_choices)
    return choices[kept.index(max(kept))], choices[kept.index(min(kept))]
