"""How a search goes on: ask for an architecture, tell its score."""

from bisect import insort
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from mutorch.errors import ConfigError, nearest
from mutorch.space import Architecture, random_at

from .dominance import crowding, front_ranks
from .feasible import Feasible
from .history import Trial


class Strategy(Protocol):
    """What `search` needs of a strategy.

    What `ask` returns must depend only on how it was made and on what was told, so that a search can be resumed by
    telling it the log. Several architectures may be asked for before the first of them is told; they are told in the order of asking.
    """

    def ask(self) -> Architecture | None:
        """The next architecture to evaluate; `None` when there is none, or none before something is told."""

    def tell(self, trial: Trial) -> None:
        """What came of an architecture that was asked for: its `score`, or all `values`, and the `violation` of constraints."""


StrategyFactory = Callable[[Feasible, int], Strategy]
"""Makes a strategy of what may be drawn and a seed; a strategy class with these two arguments is one."""


class RandomSearch:
    """Feasible architectures at random, each once: the baseline that every other strategy has to beat."""

    def __init__(self, feasible: Feasible, seed: int) -> None:
        self._feasible = feasible
        self._seed = seed
        self._asked = 0

    def ask(self) -> Architecture | None:
        self._asked += 1
        return self._feasible.draw(random_at(self._seed, "random search", self._asked))

    def tell(self, trial: Trial) -> None:
        pass


class Evolution:
    """Evolution of the best (SPOS, arXiv 1904.00420): random ones first, then children of the best so far.

    A child is a crossover of two of the best, or a mutation of one; it must be feasible and new. Where there are several
    objectives, the best are those of NSGA-II (Deb et al. 2002): the first fronts, and in the last of them the least crowded.

    Args:
        feasible, seed: see `StrategyFactory`.
        population: how many start at random, and how many of the best are parents.
        crossover: the share of children made by crossover.
        mutate_prob: how probably a mutation changes each decision (one at least).
        max_attempts: children tried before a random architecture is taken instead.
    """

    def __init__(
        self,
        feasible: Feasible,
        seed: int,
        *,
        population: int = 20,
        crossover: float = 0.5,
        mutate_prob: float = 0.1,
        max_attempts: int = 50,
    ) -> None:
        if population < 2:
            raise ConfigError(f"population must be at least 2, got {population}")
        self._feasible = feasible
        self._seed = seed
        self._population = population
        self._crossover = crossover
        self._mutate_prob = mutate_prob
        self._max_attempts = max_attempts
        self._asked = 0
        self._best: list[Trial] = []  # best first

    def ask(self) -> Architecture | None:
        self._asked += 1
        rng = random_at(self._seed, "evolution", self._asked)
        space = self._feasible.space
        parents = [trial.architecture for trial in self._best]
        if len(parents) == self._population:
            for _ in range(self._max_attempts):
                if rng.random() < self._crossover:
                    first, second = rng.sample(parents, 2)
                    child = space.crossover(first, second, rng)
                else:
                    child = space.mutate(rng.choice(parents), rng, self._mutate_prob)
                accepted = self._feasible.accept(child)
                if accepted is not None:
                    return accepted
        return self._feasible.draw(rng)

    def tell(self, trial: Trial) -> None:
        if len(trial.values) > 1:
            self._best = survivors([*self._best, trial], self._population)
            return
        insort(self._best, trial, key=lambda one: one.key)
        del self._best[self._population :]


def survivors(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The trials that NSGA-II keeps, best first: by violation, then by front, then the least crowded of it, then the earlier."""
    values = np.array([trial.values for trial in trials])
    ranks = front_ranks(values)
    apart = np.zeros(len(trials))
    for rank in np.unique(ranks):
        apart[ranks == rank] = crowding(values[ranks == rank])
    order = sorted(range(len(trials)), key=lambda i: (*trials[i].key[:2], ranks[i], -apart[i], trials[i].index))
    return [trials[i] for i in order[:count]]


STRATEGIES: dict[str, StrategyFactory] = {"evolution": Evolution, "random": RandomSearch}
"""The strategies that `search` knows by name."""


def make_strategy(strategy: str | StrategyFactory, feasible: Feasible, seed: int) -> Strategy:
    """The strategy of that name, or made by that function.

    Errors:
        ConfigError: an unknown name.
    """
    if isinstance(strategy, str):
        if strategy not in STRATEGIES:
            raise ConfigError(f"no strategy {strategy!r}; {nearest(strategy, STRATEGIES)}")
        strategy = STRATEGIES[strategy]
    return strategy(feasible, seed)
