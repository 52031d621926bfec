"""The same search with several seeds: how much of a result is luck."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mutorch.errors import ConfigError

from .history import History


@dataclass(frozen=True, slots=True)
class Repeated:
    """What a search found with each seed.

    Attributes:
        histories: by seed, in the order of the seeds.
    """

    histories: Mapping[int, History]

    @property
    def scores(self) -> dict[int, float]:
        """The best score of each seed."""
        return {seed: history.best.score for seed, history in self.histories.items()}

    @property
    def mean(self) -> float:
        """The mean of the best scores."""
        return float(np.mean(list(self.scores.values())))

    @property
    def spread(self) -> float:
        """The standard deviation of the best scores, of a sample; not-a-number for one seed, which has none."""
        scores = list(self.scores.values())
        return float(np.std(scores, ddof=1)) if len(scores) > 1 and all(map(math.isfinite, scores)) else math.nan

    def to_dict(self) -> dict[str, Any]:
        """What a run card shows."""
        return {
            "seeds": list(self.histories),
            "mean": self.mean,
            "spread": self.spread,
            "best": [
                {"seed": seed, "score": history.best.score, "architecture": history.best.architecture}
                for seed, history in self.histories.items()
            ],
        }

    def __str__(self) -> str:
        spread = "" if math.isnan(self.spread) else f" ± {self.spread:.4g}"
        return f"{self.mean:.6g}{spread} over {len(self.histories)} seeds"


def repeat(seeds: Iterable[int], run: Callable[[int], History]) -> Repeated:
    """Run a search once with each seed, and see how far the results lie apart.

    Args:
        seeds: different ones.
        run: takes a seed and returns what `search` found with it.

    Errors:
        ConfigError: no seeds, or one twice; a run that returns no history, an empty one, or that of another seed.

    Example:
        >>> from mutorch.search import search_space
        >>> from mutorch.space import Decision, SearchSpace
        >>> space = SearchSpace([Decision("depth", (1, 2, 3))])
        >>> found = repeat([0, 7], lambda seed: search_space(space, lambda a: a["depth"], num_trials=3, seed=seed))
        >>> print(found.scores, found)
        {0: 3.0, 7: 3.0} 3 ± 0 over 2 seeds
    """
    chosen = list(seeds)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ConfigError(f"repeat takes one or more seeds, each once, got {chosen}")
    found: dict[int, History] = {}
    for seed in chosen:
        history = run(seed)
        if not isinstance(history, History) or not history.trials:
            what = "an empty history" if isinstance(history, History) else type(history).__name__
            raise ConfigError(f"run({seed}) must return what `search` found, with trials, and returned {what}")
        if history.run.get("seed", seed) != seed:
            raise ConfigError(
                f"run({seed}) returned a search with seed {history.run['seed']}: pass its argument on, as search(..., seed=seed)"
            )
        found[seed] = history
    return Repeated(found)
