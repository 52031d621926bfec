"""Architectures as numbers that a model can learn from."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutorch.space import Decision, SearchSpace
from mutorch.space.conditions import parents_first

from .ladders import ladders

Codes = NDArray[np.int64]
"""(architectures, decisions), as `SearchSpace.encode` numbers choices."""


class Encoding:
    """Rows of features whose dot product says how similar two architectures are: 1 where they are equal, 0 where nothing is.

    Each decision counts the same. Choices without an order are similar only to themselves; numbers and sizes the more, the fewer
    steps are between them. A decision that is hidden in both architectures is equal, whatever it says.

    Example:
        >>> space = SearchSpace([Decision("width", (8, 16, 32)), Decision("op", ("conv", "skip"))])
        >>> features = Encoding(space).features(np.array([[0, 0], [1, 0], [2, 1]]))
        >>> (features @ features.T).round(3).tolist()
        [[1.0, 0.75, 0.0], [0.75, 1.0, 0.25], [0.0, 0.25, 1.0]]
    """

    def __init__(self, space: SearchSpace) -> None:
        place = {name: number for number, name in enumerate(space.names)}
        steps = ladders(space)
        self._defaults = np.array([d.index(d.default) for d in space], dtype=np.int64)
        self._conditions = [
            (place[d.name], [(place[parent], space[parent].index(choice)) for parent, choice in d.when])
            for d in parents_first(space.decisions)
            if d.when
        ]
        self._rows = [_rows(d, steps.get(d.name)) / np.sqrt(len(space)) for d in space]

    def active(self, codes: Codes) -> NDArray[np.bool_]:
        """Which decisions matter in each architecture; of the shape of the codes."""
        active = np.ones(codes.shape, dtype=np.bool_)
        for decision, conditions in self._conditions:
            held = [active[:, parent] & (codes[:, parent] == choice) for parent, choice in conditions]
            active[:, decision] = np.logical_or.reduce(held)
        return active

    def canonical(self, codes: Codes) -> Codes:
        """The codes with hidden decisions at their default."""
        return np.where(self.active(codes), codes, self._defaults) if self._conditions else codes

    def features(self, codes: Codes) -> NDArray[np.float64]:
        """(architectures, features)."""
        active = self.active(codes)
        return np.concatenate(
            [rows[np.where(active[:, n], codes[:, n], len(rows) - 1)] for n, rows in enumerate(self._rows)], axis=1
        )


def _rows(decision: Decision, ladder: list[Any] | None) -> NDArray[np.float64]:
    """A row for each choice and, last, for being hidden; a matrix root of their similarities."""
    count = len(decision.choices)
    similar = np.eye(count + 1)
    if ladder is not None:
        steps = np.array([ladder.index(choice) for choice in decision.choices])
        similar[:count, :count] = 1 - np.abs(steps[:, None] - steps) / (count - 1)
    values, vectors = np.linalg.eigh(similar)
    return np.asarray(vectors * np.sqrt(values.clip(0)))
