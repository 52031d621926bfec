"""Running narrower models, to see whether what was learned is right."""

import numpy as np
from torch import nn

from mutorch.errors import MutorchError
from mutorch.mutables.clock import tick
from mutorch.space import random_at

from .atoms import Ids
from .build import Search
from .dims import LabelMismatchError
from .observer import Observer
from .observing import observe_labels


class ObserveError(MutorchError, RuntimeError):
    """A model that cannot be observed, or that its own forward does not let be cut."""


def try_narrower(net: nn.Module, search: Search, *, num_trials: int, training: bool) -> tuple[Ids, str] | None:
    """Run the smallest and random subnets, each with the labels that were learned at full width.

    What meets at an operation must be the same channels there as at full width; so a subnet that passes computes what the
    full model computes with the other channels absent. Gives the atoms that must be frozen, and why; `None` if all is well.

    Args:
        training: try what runs in training, too.
    """
    decisions = search.decisions
    try:
        for trial in range(num_trials + 1 if decisions else 0):
            for decision in decisions:
                choices = list(decision.choices)
                decision.assign(choices[0] if trial == 0 else random_at(trial, "trial", decision.name).choice(choices))
            for mode in (False, True) if training else (False,):
                failure = _trial(net, search, mode)
                if failure is not None:
                    return failure
    finally:
        for decision in decisions:
            decision.assign(decision.default_choice)
    return None


def _trial(net: nn.Module, search: Search, training: bool) -> tuple[Ids, str] | None:
    checker = Observer(search.observer.algebra.atoms, checking=True)
    checker.parameters = search.observer.parameters
    tick()  # active parts that an earlier trial read have no labels here
    try:
        observe_labels(net, search.example_inputs, checker, training=training)
    except Exception as error:
        groups = _blamed(search, checker, error)
        if not groups:
            raise ObserveError(
                f"{type(net).__name__} runs at full width, but a narrower one fails in {checker.module!r}: {error}"
            ) from error
        atoms = np.concatenate([search.structure.groups[number].atoms for number in groups])
        where = f" in {checker.module!r}" if checker.module else ""
        return atoms, f"a narrower model fails{where} ({type(error).__name__}: {str(error)[:120]})"
    return None


def _blamed(search: Search, checker: Observer, error: Exception) -> list[int]:
    """The groups whose channels met where a narrower model failed; else those of the module that ran."""
    structure = search.structure
    atoms = error.atoms if isinstance(error, LabelMismatchError) else np.empty(0, dtype=np.int64)
    if not len(atoms):
        found = [checker.algebra.atoms_of(dim) for tensor in checker.blamed for dim in checker.labels(tensor)]
        atoms = np.concatenate([*found, atoms])
    groups = [number for number in structure.groups_in([atoms]) if number in search.group_units]
    path = checker.module
    while not groups:
        inside = [
            number
            for number, group in enumerate(structure.groups)
            if number in search.group_units and any(is_inside(place.module, path) for place, _ in group.places)
        ]
        if inside or not path:
            return inside
        path = path.rpartition(".")[0]
    return groups


def is_inside(path: str, around: str) -> bool:
    """Whether a path is that of a module or of something in it."""
    return not around or path == around or path.startswith(f"{around}.")
