"""The original class, cut to the shapes of somebody's checkpoint."""

import copy
import glob
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from mutorch.channels.atoms import ALWAYS, Atoms
from mutorch.channels.observer import Observer
from mutorch.channels.observing import observe_labels
from mutorch.channels.searchable import searchable
from mutorch.channels.structure import Components, Structure, TensorDim, find_structure
from mutorch.channels.widths import Widths, widths
from mutorch.errors import LoadError, nearest
from mutorch.mutators import Mutator
from mutorch.utils import ExampleInputs

from .export import export

Term = tuple[int, tuple[int, ...]]
"""So many positions for each combination of kept channels of these groups."""


def shrink_like(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    example_inputs: ExampleInputs,
    *,
    known: Mapping[str, int] | None = None,
) -> nn.Module:
    """A copy of `model`, cut to the shapes in `state_dict` and filled with its tensors.

    It rescues checkpoints of pruned models whose architecture was not saved (users of every pruning library have some): the
    widths are inferred from the shapes, whatever made them. `model` is left as it is.

    Args:
        state_dict: as `torch.load(..., weights_only=True)` gives it; names as in `model.state_dict()`.
        example_inputs: what the model is called with; see `searchable`.
        known: unit to its number of channels, as `searchable` names units. Needed where shapes do not say: the rows of an
            attention's projections are heads times head width, and heads are taken to have been removed, unless this
            says otherwise.

    Errors:
        LoadError: names that differ, a tensor larger than the model's, or shapes that no choice of channels gives; the
            first one is named with both shapes.

    Example:
        >>> import torch
        >>> small = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> shrink_like(model, small.state_dict(), torch.zeros(1, 4))
        Sequential(
          (0): Linear(in_features=4, out_features=5, bias=True)
          (1): ReLU()
          (2): Linear(in_features=5, out_features=2, bias=True)
        )
    """
    own = model.state_dict()
    for name, names, what in (
        ("the model", own, "lacks"),
        ("the checkpoint", state_dict, "has, and the model has not,"),
    ):
        other = state_dict if names is own else own
        missing = [key for key in names if key not in other]
        if missing:
            raise LoadError(f"the checkpoint {what} {len(missing)} tensors of {name}, first {missing[0]!r}")
    observer = Observer(Atoms())
    observer.label_parameters(model)
    observe_labels(model, example_inputs, observer)
    structure = find_structure(model, observer, {})
    names = {group.name: number for number, group in enumerate(structure.groups)}
    for name in known or {}:
        if name not in names:
            raise LoadError(f"known names {name!r}, which is no unit of the model; {nearest(name, names)}")
    counts = _solve(structure, own, state_dict, {names[name]: count for name, count in (known or {}).items()})
    rules = [
        widths(glob.escape(structure.groups[number].name), counts=[count], divisor=1)
        for number, count in counts.items()
        if count < structure.groups[number].num_channels
    ]
    plain = _cut(model, rules, example_inputs)
    for name, tensor in plain.state_dict().items():
        if tensor.shape != state_dict[name].shape:
            raise LoadError(
                f"{name!r} has shape {tuple(state_dict[name].shape)} in the checkpoint, and no choice of channels of "
                f"{type(model).__name__} gives it: it would be {tuple(tensor.shape)} with what the other tensors say"
            )
    plain.load_state_dict(dict(state_dict))
    return plain


def _cut(model: nn.Module, rules: Sequence[Widths], example_inputs: ExampleInputs) -> nn.Module:
    if not rules:
        return copy.deepcopy(model)
    net = searchable(model, example_inputs, rules=rules, num_trials=0)
    return export(net, Mutator(net).space.min)


def _solve(
    structure: Structure, own: Mapping[str, Tensor], wanted: Mapping[str, Tensor], known: Mapping[int, int]
) -> dict[int, int]:
    """How many channels each group keeps, from the sizes of the dimensions that it has channels in.

    Each dimension is an equation; those with one unknown group are solved first. Where a dimension is a product of two
    unknown groups (heads, and places in a head), the second is taken to be whole.
    """
    equations: list[tuple[TensorDim, list[Term], int, int]] = []
    for place, components in structure.dims.items():
        if place.path in wanted and wanted[place.path].dim() == own[place.path].dim():
            terms, constant = _terms(structure, components)
            equations.append((place, terms, constant, int(wanted[place.path].shape[place.dim])))
    counts = dict(known)
    columns = {n for components in structure.dims.values() for n in structure.groups_in(components[1:])}
    while len(counts) < len(structure.groups):
        solved = [found for equation in equations if (found := _one_unknown(equation, counts)) is not None]
        if solved:
            number, count, place = solved[0]
            group = structure.groups[number]
            if not 1 <= count <= group.num_channels or count != int(count):
                raise LoadError(
                    f"{place.path!r} has size {wanted[place.path].shape[place.dim]} along dimension {place.dim} in the "
                    f"checkpoint, and {place.size} in the model: no number of the {group.num_channels} channels of "
                    f"{group.name!r} gives that"
                )
            counts[number] = int(count)
            continue
        unknown = [number for number in range(len(structure.groups)) if number not in counts]
        whole = next((number for number in unknown if number in columns), unknown[-1])
        counts[whole] = structure.groups[whole].num_channels
    return counts


def _one_unknown(
    equation: tuple[TensorDim, list[Term], int, int], counts: Mapping[int, int]
) -> tuple[int, float, TensorDim] | None:
    place, terms, constant, size = equation
    unknown = {number for _, groups in terms for number in groups if number not in counts}
    if len(unknown) != 1:
        return None
    (number,) = unknown
    slope, rest = 0, size - constant
    for factor, groups in terms:
        known = factor * int(np.prod([counts[g] for g in groups if g != number], dtype=np.int64))
        if number in groups:
            slope += known
        else:
            rest -= known
    return number, rest / slope, place


def _terms(structure: Structure, components: Components) -> tuple[list[Term], int]:
    """A dimension's size as a sum of products of numbers of kept channels, and what is always there."""
    rows = [np.where(component == ALWAYS, -1, structure.group_of[component]) for component in components]
    patterns, counts = np.unique(np.sort(np.stack(rows), axis=0), axis=1, return_counts=True)
    terms: list[Term] = []
    constant = 0
    for pattern, count in zip(patterns.T.tolist(), counts.tolist(), strict=True):
        groups = tuple(number for number in pattern if number >= 0)
        whole = int(np.prod([structure.groups[number].num_channels for number in groups], dtype=np.int64))
        if groups:
            terms.append((count // whole, groups))
        else:
            constant += count
    return terms, constant
