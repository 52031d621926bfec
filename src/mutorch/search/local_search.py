"""Hill climbing: from a good architecture to a better neighbour, and from a summit to somewhere else."""

from collections.abc import Iterator

from mutorch.errors import ConfigError
from mutorch.space import Architecture, random_at

from .dominance import dominates
from .feasible import Feasible
from .history import Trial


class LocalSearch:
    """Local search (White et al. 2020, arXiv 2005.02960): neighbours of the best so far until none is better, then anew.

    Random architectures first. Then the neighbours of the best, which differ in one decision, are asked for in random order; one
    that is better becomes the place to go on from at once. Where all neighbours were asked for, it begins again at a random
    architecture. With several objectives, the place is a front: what no neighbour found so far dominates (Pareto local search,
    Paquete et al. 2004).

    Args:
        feasible, seed: see `StrategyFactory`.
        starts: how many architectures are random at first; the climb begins at the best of them.

    Errors:
        ConfigError: no start.
    """

    def __init__(self, feasible: Feasible, seed: int, *, starts: int = 8) -> None:
        if starts < 1:
            raise ConfigError(f"starts must be at least 1, got {starts}")
        self._feasible = feasible
        self._seed = seed
        self._starts = starts
        self._asked = self._told = 0
        self._restarts: dict[int, int] = {}  # number of the ask to that of the climb it ends
        self._climb = 0
        self._front: list[Trial] = []
        self._ways: dict[int, Iterator[Architecture]] = {}

    def ask(self) -> Architecture | None:
        random = random_at(self._seed, "local search", self._asked)
        if self._asked >= self._starts:
            for trial in self._front:
                for neighbour in self._neighbours(trial):
                    accepted = self._feasible.accept(neighbour)
                    if accepted is not None:
                        self._asked += 1
                        return accepted
            self._restarts[self._asked] = self._climb
        self._asked += 1
        return self._feasible.draw(random)

    def tell(self, trial: Trial) -> None:
        # A restart ends the climb that it was asked in, unless a neighbour that was told in between went on with it.
        if self._restarts.pop(self._told, None) == self._climb:
            self._front, self._ways = [], {}
        self._told += 1
        if any(_beats(other, trial) or _equals(other, trial) for other in self._front):
            return
        self._climb += 1
        self._front = [other for other in self._front if not _beats(trial, other)] + [trial]
        self._ways = {other.index: self._ways[other.index] for other in self._front if other.index in self._ways}

    def _neighbours(self, trial: Trial) -> Iterator[Architecture]:
        if trial.index not in self._ways:
            neighbours = self._feasible.space.neighbours(trial.architecture)
            random_at(self._seed, "neighbours", trial.index).shuffle(neighbours)
            self._ways[trial.index] = iter(neighbours)
        return self._ways[trial.index]


def _beats(first: Trial, second: Trial) -> bool:
    """By constraints first, then in all objectives."""
    if first.key[:2] != second.key[:2]:
        return first.key[:2] < second.key[:2]
    return dominates(first.values, second.values)


def _equals(first: Trial, second: Trial) -> bool:
    return first.key[:2] == second.key[:2] and first.values == second.values
