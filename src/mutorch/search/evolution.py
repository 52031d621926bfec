"""Evolution of the best."""

from mutorch.errors import ConfigError
from mutorch.space import Architecture, random_at

from .feasible import Feasible
from .history import Trial
from .survivors import survivors


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
        self._best = survivors([*self._best, trial], self._population)
