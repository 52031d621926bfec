"""Which architectures to measure, so that little of a space is left unknown."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle, islice
from random import Random

import numpy as np

from mutorch.errors import CostError, SpaceError
from mutorch.space import Architecture, SearchSpace, random_at

from .latency_terms import Floats, TermsOf

_POOL = 1000
_TRIES = 3
_UNKNOWN = 1000.0


def design(space: SearchSpace, num_samples: int, seed: int) -> list[Architecture]:
    """Architectures to measure, in random order.

    Half of them are chosen, of a thousand random ones, so that every choice is told from the others as well as it can be:
    always the one that is predicted worst by those before it (D-optimal, greedily). The others are random. A space of fewer
    architectures is measured whole, several times.

    Errors:
        CostError: too few samples to see all choices; one that is not seen is named.

    Example:
        >>> from mutorch.space import Decision
        >>> space = SearchSpace([Decision("a", (1, 2)), Decision("b", ("x", "y", "z"))])
        >>> len({tuple(architecture.items()) for architecture in design(space, 12, seed=0)})
        6
    """
    if num_samples < 2:
        raise CostError(f"num_samples must be at least 2, got {num_samples}")
    random = random_at(seed, "latency design")
    if _size(space) <= num_samples:
        chosen = list(islice(cycle(space.grid()), num_samples))
    else:
        pool = _pool(space, random)
        columns = _columns(space, pool)
        first = _informative(columns, min(len(pool), max(num_samples // 2, min(num_samples, columns.shape[1]))))
        taken = set(first)
        others = [number for number in range(len(pool)) if number not in taken]
        chosen = [pool[number] for number in islice(cycle([*first, *others]), num_samples)]
        _check(space, pool, chosen)
    random.shuffle(chosen)
    return chosen


def _size(space: SearchSpace) -> float:
    try:
        return space.size
    except SpaceError:  # constraints tie too many decisions together to count
        return np.inf


def _pool(space: SearchSpace, random: Random) -> list[Architecture]:
    """Different architectures: random ones, and for each choice some that have it."""
    found = [space.sample(random) for _ in range(_POOL)]
    for decision in space:
        for choice in decision.choices:
            fixed: Architecture = {decision.name: choice}
            inner = decision
            while inner.when and inner.when[0][0] not in fixed:
                parent, own = random.choice(inner.when)
                fixed[parent] = own
                inner = space[parent]
            for _ in range(_TRIES):
                with suppress(SpaceError):  # what constraints rule out is not measured
                    found.append(space.random(random, fixed))
    codes = dict.fromkeys(space.encode(space.canonical(architecture)) for architecture in found)
    return [space.decode(code) for code in codes]


def _columns(space: SearchSpace, pool: Sequence[Architecture]) -> Floats:
    codes = np.array([space.encode(architecture) for architecture in pool])
    return np.concatenate(
        [np.ones((len(pool), 1)), *(terms.columns(codes) for terms in TermsOf(space).single())], axis=1
    )


def _informative(columns: Floats, count: int) -> list[int]:
    """Rows, one after the other, each the least certain of a linear model of the rows before it."""
    covariance = np.eye(columns.shape[1]) * _UNKNOWN
    uncertain = (columns**2).sum(axis=1) * _UNKNOWN
    found: list[int] = []
    for _ in range(count):
        row = int(uncertain.argmax())
        found.append(row)
        direction = covariance @ columns[row]
        known = 1 + max(float(columns[row] @ direction), 0.0)
        covariance -= np.outer(direction, direction) / known
        uncertain -= (columns @ direction) ** 2 / known
        uncertain[found] = -np.inf
    return found


def _check(space: SearchSpace, pool: Sequence[Architecture], chosen: Sequence[Architecture]) -> None:
    """Every choice that is known to matter somewhere is measured; of numbers, those around it do."""
    seen, known = _seen(space, chosen), _seen(space, pool)
    for decision in space:
        ordered = all(isinstance(choice, int | float) for choice in decision.choices)
        for choice in decision.choices:
            pair = (decision.name, decision.index(choice))
            if pair in known and pair not in seen and not ordered:
                raise CostError(
                    f"{len(chosen)} measurements do not see decision {decision.name!r} at {choice!r}; give a larger num_samples"
                )


def _seen(space: SearchSpace, architectures: Sequence[Architecture]) -> set[tuple[str, int]]:
    codes = np.array([space.encode(architecture) for architecture in architectures])
    active = TermsOf(space).active(codes)
    return {
        (name, int(code))
        for number, name in enumerate(space.names)
        for code in np.unique(codes[active[:, number], number])
    }
