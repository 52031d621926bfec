"""How a search goes on: ask for an architecture, tell its score."""

from bisect import insort
from collections.abc import Callable
from typing import Protocol

from mutorch.errors import ConfigError, nearest
from mutorch.space import Architecture, random_at

from .feasible import Feasible
from .history import as_score


class Strategy(Protocol):
    """What `search` needs of a strategy.

    What `ask` returns must depend only on how it was made and on what was told, so that a search can be resumed by
    telling it the log.
    """

    def ask(self) -> Architecture | None:
        """The next architecture to evaluate; `None` when there is none."""

    def tell(self, architecture: Architecture, score: float) -> None:
        """The score of an architecture that was asked for."""


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

    def tell(self, architecture: Architecture, score: float) -> None:
        pass


class Evolution:
    """Evolution of the best (SPOS, arXiv 1904.00420): random ones first, then children of the best so far.

    A child is a crossover of two of the best, or a mutation of one; it must be feasible and new.

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
        self._told = 0
        self._best: list[tuple[float, int, Architecture]] = []  # best first; among equals the earlier one

    def ask(self) -> Architecture | None:
        self._asked += 1
        rng = random_at(self._seed, "evolution", self._asked)
        space = self._feasible.space
        parents = [architecture for _, _, architecture in self._best]
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

    def tell(self, architecture: Architecture, score: float) -> None:
        # The number is never equal, so that architectures are not compared.
        insort(self._best, (-as_score(score), self._told, architecture))
        del self._best[self._population :]
        self._told += 1


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
