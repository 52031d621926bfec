"""What Optuna calls a search space, and our architectures in it."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from mutorch.errors import ConfigError, SpaceError, nearest
from mutorch.space import Architecture, Choice, Decision, SearchSpace
from mutorch.utils import require

from .ladders import ladders

SAMPLERS = ("nsga2", "nsga3", "tpe", "cmaes")
"""The samplers of Optuna that have a name here."""
VIOLATION = "violation"
"""What the constraint of an Optuna trial is called: how far the constraints of a search are missed."""


Ordered = bool | Literal["all"]


def distributions(space: SearchSpace, *, ordered: Ordered = True) -> dict[str, Any]:
    """The decisions of a space as distributions of Optuna, by name; it does not know what hides what, nor constraints.

    Args:
        ordered: whether decisions whose choices are numbers or sizes are numbers for Optuna too: whole numbers at even
            distances as they are, others by their position from the smallest, 0. Otherwise, and for all other decisions,
            categories: the choices as they are, or where some are lists, all as JSON texts. With `"all"` there are none: choices
            without an order are numbered as they stand, for samplers that know only numbers.

    Errors:
        MissingExtraError: Optuna is not installed.

    Example:
        >>> space = SearchSpace([Decision("width", (8, 16, 24)), Decision("op", ("conv", "skip"))])
        >>> distributions(space)["width"]
        IntDistribution(high=24, log=False, low=8, step=8)
        >>> distributions(space)["op"]
        CategoricalDistribution(choices=('conv', 'skip'))
    """
    module = require("optuna.distributions", extra="optuna")
    steps = _ladders(space, ordered)
    found: dict[str, Any] = {}
    for decision in space:
        ladder = steps.get(decision.name)
        if ladder is None:
            found[decision.name] = module.CategoricalDistribution(_categories(decision))
        elif _is_even(ladder):
            found[decision.name] = module.IntDistribution(ladder[0], ladder[-1], step=ladder[1] - ladder[0])
        else:
            found[decision.name] = module.IntDistribution(0, len(ladder) - 1)
    return found


def to_params(space: SearchSpace, architecture: Mapping[str, Choice], *, ordered: Ordered = True) -> dict[str, Any]:
    """An architecture as parameters of an Optuna trial, hidden decisions at their default.

    Errors:
        SpaceError, ChoiceError, ConstraintError: no architecture of the space.

    Example:
        >>> space = SearchSpace([Decision("width", (8, 16, 32)), Decision("size", ([9, 9], [7, 9])), Decision("op", ("a", "b"))])
        >>> to_params(space, {"width": 32, "size": [9, 9], "op": "b"})
        {'width': 2, 'size': 1, 'op': 'b'}
        >>> to_params(space, {"width": 32, "size": [9, 9], "op": "b"}, ordered=False)
        {'width': 32, 'size': '[9, 9]', 'op': 'b'}
    """
    canonical = space.canonical(architecture)
    return {name: params[space[name].index(canonical[name])] for name, params in _params(space, ordered).items()}


def from_params(space: SearchSpace, params: Mapping[str, Any], *, ordered: Ordered = True) -> Architecture:
    """The architecture that parameters of an Optuna trial say; constraints of the space are not looked at.

    Args:
        params: of all decisions but those that are hidden, which are then at their default.
        ordered: as the distributions were made.

    Errors:
        SpaceError: unknown names, a decision that is missing and matters, or a value that its distribution does not have.

    Example:
        >>> space = SearchSpace([Decision("width", (8, 16, 32)), Decision("op", ("conv", "skip"))])
        >>> from_params(space, {"width": 1, "op": "skip"})
        {'width': 16, 'op': 'skip'}
    """
    for name in params:
        _ = space[name]
    found: Architecture = {decision.name: decision.default for decision in space}
    for name, known in _params(space, ordered).items():
        if name in params:
            if params[name] not in known:
                raise SpaceError(f"parameter {name!r} cannot be {params[name]!r}; {nearest(params[name], known)}")
            found[name] = space[name].choices[known.index(params[name])]
    for name in space.names:
        if name not in params and space.is_active(name, found):
            raise SpaceError(f"the parameters have no {name!r}, which matters here; {nearest(name, params)}")
    return found


def make_sampler(name: str, seed: int, num_objectives: int = 1) -> Any:
    """A sampler of Optuna by name, with the settings that suit searches of some hundred trials.

    It knows of constraints what `set_violation` told; `"cmaes"` knows of none, and of categories neither: give it
    distributions that are ordered, all.

    Args:
        name: `"nsga2"` (Deb et al. 2002), `"nsga3"` (Deb and Jain 2014; for three objectives and more), `"tpe"` (Bergstra et
            al. 2011) or `"cmaes"` (Hansen and Ostermeier 2001; one objective).

    Errors:
        ConfigError: an unknown name; CMA-ES and several objectives.
        MissingExtraError: Optuna is not installed.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"no sampler {name!r}; {nearest(name, SAMPLERS)}")
    if name == "cmaes" and num_objectives > 1:
        raise ConfigError(f"CMA-ES has one objective, and there are {num_objectives}; take 'nsga2' or 'tpe'")
    samplers = require("optuna.samplers", extra="optuna")
    constrained = {} if _has_constraints() else {"constraints_func": violation_of}
    with quiet():
        if name == "nsga2":
            return samplers.NSGAIISampler(population_size=20, seed=seed, **constrained)
        if name == "nsga3":
            return samplers.NSGAIIISampler(population_size=20, seed=seed, **constrained)
        if name == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True, **constrained)
        require("cmaes", extra="optuna")
        return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def set_violation(trial: Any, violation: float) -> None:
    """Say how far a running Optuna trial misses the constraints; 0 where all hold."""
    if _has_constraints():
        trial.set_constraint(VIOLATION, violation)
    else:
        trial.set_user_attr(VIOLATION, violation)


def violation_of(trial: Any) -> tuple[float]:
    """What `set_violation` said, for samplers of your own in Optuna 4: `NSGAIISampler(constraints_func=violation_of)`."""
    return (float(trial.user_attrs.get(VIOLATION, 0.0)),)


def _has_constraints() -> bool:
    """Whether trials have constraints themselves, as from Optuna 5 on; before, samplers read them by a function."""
    return hasattr(require("optuna.trial", extra="optuna").Trial, "set_constraint")


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without messages and warnings of what is experimental; afterwards as it was."""
    optuna = require("optuna", extra="optuna")
    optuna.logging.get_verbosity()  # sets its logger up, which would otherwise happen inside and be undone
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)


def _params(space: SearchSpace, ordered: Ordered) -> dict[str, list[Any]]:
    """What Optuna has for each choice of each decision, in the order of the choices."""
    steps = _ladders(space, ordered)
    found: dict[str, list[Any]] = {}
    for decision in space:
        ladder = steps.get(decision.name)
        if ladder is None:
            found[decision.name] = _categories(decision)
        elif _is_even(ladder):
            found[decision.name] = list(decision.choices)
        else:
            found[decision.name] = [ladder.index(choice) for choice in decision.choices]
    return found


def _ladders(space: SearchSpace, ordered: Ordered) -> dict[str, list[Choice]]:
    if ordered == "all":
        return {decision.name: list(decision.choices) for decision in space} | ladders(space)
    return ladders(space) if ordered else {}


def _categories(decision: Decision) -> list[Any]:
    if any(isinstance(choice, list) for choice in decision.choices):
        return [json.dumps(choice) for choice in decision.choices]
    return list(decision.choices)


def _is_even(ladder: list[Choice]) -> bool:
    if not all(type(choice) is int for choice in ladder):
        return False
    return len({high - low for low, high in zip(ladder, ladder[1:], strict=False)}) == 1
