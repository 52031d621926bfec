"""Which trials are the best, of one objective or several."""

from collections.abc import Sequence

import numpy as np

from .dominance import crowding, front_ranks
from .history import Trial


def survivors(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The best of some trials, best first: those without errors, then by violation, then by score.

    With several objectives as NSGA-II (Deb et al. 2002): by front instead of score, then the least crowded of it, then the earlier.
    """
    if len(trials[0].values) == 1:
        return sorted(trials, key=lambda trial: trial.key)[:count]
    values = np.array([trial.values for trial in trials])
    ranks = front_ranks(values)
    apart = np.zeros(len(trials))
    for rank in np.unique(ranks):
        apart[ranks == rank] = crowding(values[ranks == rank])
    order = sorted(range(len(trials)), key=lambda i: (*trials[i].key[:2], ranks[i], -apart[i], trials[i].index))
    return [trials[i] for i in order[:count]]
