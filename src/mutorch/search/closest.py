"""The architecture nearest to a budget, where none within it is known."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutorch.cost import Budget, CostTable

from .region import Region

_KEPT = 32
_ROUNDS = 100


def closest(region: Region, table: CostTable, budget: Budget, codes: NDArray[Any]) -> tuple[NDArray[np.int64], bool]:
    """Codes that are within the budget, or the nearest to it that were found, and whether they are within.

    The best of the given architectures, and of those at the ends of each metric, are changed in one decision after another for as
    long as that helps.
    """
    ends = [find(metric) for metric in budget.bounds for find in (table.cheapest, table.largest)]
    codes = np.concatenate([np.array([table.space.encode(architecture) for architecture in ends]), codes])
    for _ in range(_ROUNDS):
        excess = _excess(region, table, budget, codes)
        codes = codes[np.argsort(excess, kind="stable")[:_KEPT]]
        if excess.min() <= 0:
            return codes[0], True
        moved = _all_changes(region, codes)
        if _excess(region, table, budget, moved).min() >= excess.min():
            break
        codes = np.concatenate([codes, moved])
    return codes[0], False


def _excess(region: Region, table: CostTable, budget: Budget, codes: NDArray[Any]) -> NDArray[np.float64]:
    """How far each is outside of the budget; what constraints rule out is outside of everything."""
    return np.where(region.allowed.mask(codes), budget.excess(table, codes), np.inf)


def _all_changes(region: Region, codes: NDArray[Any]) -> NDArray[Any]:
    changed = []
    for decision, count in enumerate(region.counts):
        for code in range(count):
            moved = codes.copy()
            moved[:, decision] = code
            changed.append(moved)
    return np.concatenate(changed)
