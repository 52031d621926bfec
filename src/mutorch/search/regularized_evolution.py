"""Aging evolution: parents win small tournaments, and whoever is oldest dies."""

from collections import deque

from mutorch.errors import ConfigError
from mutorch.space import Architecture, random_at

from .feasible import Feasible
from .history import Trial
from .survivors import survivors


class RegularizedEvolution:
    """Regularized evolution (Real et al. 2019, arXiv 1802.01548): mutations of winners of tournaments among the latest trials.

    Random architectures first; then, of some of the latest trials, the best is mutated in one decision. An architecture lives as
    long as `population` younger ones do not exist, however good it is: what scored well by luck does not stay. Since no
    architecture is evaluated twice, a child that exists is replaced by another; where a parent has no new children at hand, by one
    that differs in more decisions. With several objectives, a tournament is won as in NSGA-II.

    Args:
        feasible, seed: see `StrategyFactory`.
        population: how many of the latest trials may become parents.
        tournament: how many of these, drawn at random, compete to become one; more is greedier.
        starts: how many architectures are random at first.
        max_attempts: children tried before a random architecture is taken instead.

    Errors:
        ConfigError: numbers that are too small, or a tournament larger than the population.
    """

    def __init__(
        self,
        feasible: Feasible,
        seed: int,
        *,
        population: int = 50,
        tournament: int = 10,
        starts: int = 8,
        max_attempts: int = 50,
    ) -> None:
        if not 1 <= tournament <= population:
            raise ConfigError(
                f"a tournament is of at least 1 and at most the population's {population}, got {tournament}"
            )
        self._feasible = feasible
        self._seed = seed
        self._starts = starts
        self._tournament = tournament
        self._max_attempts = max_attempts
        self._asked = 0
        self._alive: deque[Trial] = deque(maxlen=population)
        self._ranked: list[Trial] = []  # those alive, best first

    def ask(self) -> Architecture | None:
        self._asked += 1
        rng = random_at(self._seed, "regularized evolution", self._asked)
        if self._asked > self._starts and self._alive:
            self._ranked = self._ranked or survivors(self._alive, len(self._alive))
            for attempt in range(self._max_attempts):
                drawn = rng.sample(range(len(self._ranked)), min(self._tournament, len(self._ranked)))
                parent = self._ranked[min(drawn)]
                # One decision at first; more where the neighbours of good ones were all seen.
                child = self._feasible.space.mutate(parent.architecture, rng, prob=attempt / self._max_attempts / 2)
                accepted = self._feasible.accept(child)
                if accepted is not None:
                    return accepted
        return self._feasible.draw(rng)

    def tell(self, trial: Trial) -> None:
        self._alive.append(trial)
        self._ranked = []
