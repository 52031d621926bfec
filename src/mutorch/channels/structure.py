"""From labels to groups: which channels of which tensors are kept or removed together."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from .atoms import ALWAYS, Ids
from .attributes import Components as Components
from .attributes import SizeRule as SizeRule
from .attributes import TensorDim as TensorDim
from .attributes import find_sizes
from .dims import Dim
from .observer import Bound, Observer


@dataclass(slots=True)
class ChannelGroup:
    """Channels that one decision may remove.

    Attributes:
        name: the path of the module that makes them, or of the attribute that counts them.
        atoms: one for each channel, in order.
        places: the dimensions that they are in, and how many positions each channel has there.
    """

    name: str
    atoms: Ids
    places: list[tuple[TensorDim, int]]

    @property
    def num_channels(self) -> int:
        """How many channels there are."""
        return len(self.atoms)

    @property
    def width(self) -> int:
        """How many positions one channel has in the tensor that makes it: 64 for a head of 64."""
        return self.places[0][1]


@dataclass(slots=True)
class Structure:
    """What may be removed from a model.

    Attributes:
        groups: the searchable channels.
        dims: every dimension that something may be removed from, with its components.
        sizes: attributes that follow.
        frozen: dimensions of which nothing may be removed, and why.
        group_of, index_of: for each atom, its group (`-1`: none) and its place in it.
    """

    groups: list[ChannelGroup]
    dims: dict[TensorDim, Components]
    sizes: list[SizeRule]
    frozen: list[tuple[TensorDim, str]]
    group_of: Ids = field(repr=False)
    index_of: Ids = field(repr=False)

    def groups_in(self, components: Iterable[Ids]) -> list[int]:
        """The numbers of the groups that a dimension has channels of."""
        every = [self.group_of[component[component != ALWAYS]] for component in components]
        return sorted(set(np.concatenate(every).tolist()) - {-1}) if every else []


def tensor_dims(model: nn.Module) -> Iterable[tuple[TensorDim, int]]:
    """Every dimension of every floating parameter and buffer, once, with the id of its tensor."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or id(tensor) in seen or not tensor.is_floating_point():
                continue
            seen.add(id(tensor))
            for dim, size in enumerate(tensor.shape):
                yield TensorDim(path, name, dim, int(size)), id(tensor)


def find_structure(model: nn.Module, observer: Observer, frozen_modules: Mapping[str, str]) -> Structure:
    """Group what the observer learned.

    Args:
        frozen_modules: path of a module to why nothing of it, and of what is inside, may change.
    """
    algebra, atoms = observer.algebra, observer.algebra.atoms
    labels = {place: observer.parameters[number][place.dim] for place, number in tensor_dims(model)}
    for place, number in tensor_dims(model):
        if number not in observer.seen_parameters:
            algebra.freeze(labels[place], "the forward does not reach it")
        for path, reason in frozen_modules.items():
            if place.module == path or place.module.startswith(f"{path}.") or not path:
                algebra.freeze(labels[place], reason)
    _agree(observer)
    _freeze_loners(observer, labels)
    dims = {place: tuple(algebra.resolve(dim)) for place, dim in labels.items() if dim}
    searchable = {place: components for place, components in dims.items() if components}
    frozen = [
        (place, atoms.reason(np.concatenate(labels[place])) or "")
        for place in labels
        if labels[place] and place not in searchable
    ]
    groups, group_of, index_of = _group(searchable, observer)
    structure = Structure(groups, searchable, [], frozen, group_of, index_of)
    structure.sizes = find_sizes(model, observer, searchable)
    return structure


def _agree(observer: Observer) -> None:
    """Dimensions that one attribute counts keep equally many: the same, where they are as long."""
    by_attribute: dict[tuple[int, str, int | None], list[Bound]] = defaultdict(list)
    for bound in observer.bound:
        source = bound.attribute
        by_attribute[id(source.module), source.name, source.index].append(bound)
    for several in by_attribute.values():
        for other in several[1:]:
            if other.size == several[0].size:
                what = f"the attribute {other.attribute.name!r} counts both"
                observer.algebra.tie_counts(several[0].dim, other.dim, what)
        if any(not observer.algebra.free(bound.dim) for bound in several):
            for bound in several:
                observer.algebra.freeze(bound.dim, f"{bound.attribute.name!r} counts channels that are frozen")


def _freeze_loners(observer: Observer, labels: Mapping[TensorDim, Dim]) -> None:
    """A channel that is the only one of its kind cannot go."""
    signatures = _signatures({place: observer.algebra.resolve(dim) for place, dim in labels.items() if dim})
    counts: dict[int, list[int]] = defaultdict(list)
    for atom, signature in signatures.items():
        counts[signature].append(atom)
    alone = [members[0] for members in counts.values() if len(members) == 1]
    if alone:
        observer.algebra.atoms.freeze(np.array(alone), "it is one channel")


def _signatures(dims: Mapping[TensorDim, Sequence[Ids]]) -> dict[int, int]:
    """A number for each atom that says where it stands, and how often: atoms with equal ones form a group."""
    found: dict[int, int] = {}
    for number, components in enumerate(dims.values()):
        # By component, too: four heads of four channels each are two groups.
        for part, component in enumerate(components):
            atoms, counts = np.unique(component, return_counts=True)
            for atom, count in zip(atoms.tolist(), counts.tolist(), strict=True):
                if atom != ALWAYS:
                    found[atom] = hash((found.get(atom, 0), number, part, count))
    return found


def _group(dims: Mapping[TensorDim, Components], observer: Observer) -> tuple[list[ChannelGroup], Ids, Ids]:
    signatures = _signatures(dims)
    size = len(observer.algebra.atoms)
    group_of, index_of = np.full(size, -1, dtype=np.int64), np.zeros(size, dtype=np.int64)
    members: dict[int, list[int]] = {}
    places: dict[int, list[tuple[TensorDim, int]]] = defaultdict(list)
    # What makes channels names them: dimension 0 of a weight, in the order of the model.
    for place in sorted(dims, key=lambda place: place.dim != 0 or place.name != "weight"):
        for component in dims[place]:
            atoms, first, counts = np.unique(component, return_index=True, return_counts=True)
            order = np.argsort(first)
            for atom, count in zip(atoms[order].tolist(), counts[order].tolist(), strict=True):
                if atom == ALWAYS:
                    continue
                signature = signatures[atom]
                group = members.setdefault(signature, [])
                if group_of[atom] < 0:
                    group_of[atom], index_of[atom] = list(members).index(signature), len(group)
                    group.append(atom)
                known = places[signature]
                if not known or known[-1][0] is not place:
                    known.append((place, count))
    groups = [ChannelGroup("", np.array(atoms), places[signature]) for signature, atoms in members.items()]
    _name(groups, dims, group_of, observer)
    return groups, group_of, index_of


def _name(
    groups: Sequence[ChannelGroup], dims: Mapping[TensorDim, Components], group_of: Ids, observer: Observer
) -> None:
    counted: dict[int, str] = {}
    paths = {id(bound.attribute.module): "" for bound in observer.bound}
    paths |= {number: path for number, path in observer.paths.items() if number in paths}
    for bound in observer.bound:
        components = observer.algebra.resolve(bound.dim)
        numbers = {int(group_of[atom]) for component in components for atom in np.unique(component) if atom != ALWAYS}
        if len(components) == 1 and len(numbers) == 1 and groups[min(numbers)].num_channels == bound.size:
            counted.setdefault(min(numbers), f"{paths[id(bound.attribute.module)]}.{bound.attribute.name}".lstrip("."))
    taken: set[str] = set()
    for number, group in enumerate(groups):
        place, count = group.places[0]
        whole = count * group.num_channels == place.size and count == 1
        base = place.module or place.name
        if place.name != "weight":
            base = place.path
        name = counted[number] if number in counted and not whole else base
        unique, suffix = name, 1
        while unique in taken:
            unique, suffix = f"{name}.{suffix}", suffix + 1
        taken.add(unique)
        group.name = unique
