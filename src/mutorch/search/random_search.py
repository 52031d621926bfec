"""The baseline."""

from mutorch.space import Architecture, random_at

from .feasible import Feasible
from .history import Trial


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
