"""Which trials are the best, of one objective or several."""

from collections.abc import Sequence

import numpy as np

from .dominance import crowding, front_ranks
from .history import Trial


def survivors(trials: Sequence[Trial], count: int) -> list[Trial]:
    """The trials that NSGA-II keeps, best first: by violation, then by front, then the least crowded of it, then the earlier."""
    values = np.array([trial.values for trial in trials])
    ranks = front_ranks(values)
    apart = np.zeros(len(trials))
    for rank in np.unique(ranks):
        apart[ranks == rank] = crowding(values[ranks == rank])
    order = sorted(range(len(trials)), key=lambda i: (*trials[i].key[:2], ranks[i], -apart[i], trials[i].index))
    return [trials[i] for i in order[:count]]
