"""Many objectives at once: who beats whom, how crowded it is, and how much a front covers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mutorch.errors import ConfigError

Points = NDArray[np.float64]
"""(points, objectives), every objective to be maximised."""


def dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the first is as good in every objective and better in one.

    Example:
        >>> dominates((2, 1), (1, 1)), dominates((2, 0), (1, 1))
        (True, False)
    """
    return all(a >= b for a, b in zip(first, second, strict=True)) and tuple(first) != tuple(second)


def front_ranks(points: ArrayLike) -> NDArray[np.int64]:
    """The front that each point is in: 0 for what nothing dominates, 1 for what only those dominate, and so on.

    Args:
        points: (points, objectives), to be maximised.

    Example:
        >>> front_ranks([[1, 1], [2, 0], [0, 0], [1, 0]]).tolist()
        [0, 0, 2, 1]
    """
    values = _points(points)
    beaten = (values[:, None] <= values).all(axis=2) & (values[:, None] < values).any(axis=2)  # [i, j]: j beats i
    ranks = np.full(len(values), -1, dtype=np.int64)
    rank = 0
    while (ranks < 0).any():
        left = ranks < 0
        ranks[left & ~(beaten & left).any(axis=1)] = rank
        rank += 1
    return ranks


def crowding(points: ArrayLike) -> NDArray[np.float64]:
    """The crowding distance of NSGA-II (Deb et al. 2002): how far the neighbours of a point in a front are; ends are infinite.

    Example:
        >>> crowding([[0, 4], [1, 2], [4, 0]]).tolist()
        [inf, 2.0, inf]
    """
    values = _points(points)
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ends = column[order[[0, -1]]]
        distance[order[[0, -1]]] = np.inf
        span = ends[1] - ends[0] if np.isfinite(ends).all() else 0.0
        if span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance


def hypervolume(points: ArrayLike, reference: Sequence[float]) -> float:
    """The volume between a reference point and what is dominated by the points: more is a better front.

    Exact, by slicing one objective after the other; made for fronts of up to some hundred points and four objectives.

    Args:
        points: (points, objectives), to be maximised; those that do not beat the reference in every objective add nothing.
        reference: the worst value of each objective that is of interest.

    Example:
        >>> hypervolume([[2, 1], [1, 2]], (0, 0))
        3.0
    """
    values = _points(points)
    floor = np.asarray(reference, dtype=np.float64)
    if values.shape[1:] != floor.shape:
        raise ConfigError(f"the reference has {floor.size} values, and there are {values.shape[1]} objectives")
    above = values[(values > floor).all(axis=1)] - floor
    return _volume(np.unique(above, axis=0)) if len(above) else 0.0


def _volume(values: Points) -> float:
    if values.shape[1] == 1:
        return float(values.max())
    if values.shape[1] == 2:
        order = values[np.argsort(-values[:, 0], kind="stable")]
        highest = np.maximum.accumulate(order[:, 1])
        widths = order[:, 0] - np.append(order[1:, 0], 0.0)
        return float((widths * highest).sum())
    # From the top of the last objective down: what is above a level covers a volume of one objective less.
    order = values[np.argsort(-values[:, -1], kind="stable")]
    below = np.append(order[1:, -1], 0.0)
    total = 0.0
    for count, (level, next_level) in enumerate(zip(order[:, -1], below, strict=True), start=1):
        if level > next_level:
            upper = order[:count, :-1]
            total += (level - next_level) * _volume(upper[front_ranks(upper) == 0])
    return total


def _points(points: ArrayLike) -> Points:
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 2:
        raise ConfigError(f"points must be of shape (points, objectives), got {values.shape}")
    return values
