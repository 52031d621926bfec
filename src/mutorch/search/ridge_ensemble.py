"""An ensemble of regressions over encoded architectures: what an architecture scores, and how far the members are apart."""

from dataclasses import dataclass

import numpy as np

from .gaussian_process import Matrix, kernel

_MEMBERS = 16
_SCALE = 0.3
_RIDGE = 0.1


@dataclass(frozen=True, slots=True)
class RidgeEnsemble:
    """Kernel ridge regressions, each fitted to a resample with replacement of what was seen (bagging, Breiman 1996).

    Where little was seen, the members say different things: their mean and spread are what a Gaussian process says by formula.

    Args:
        features: as `Encoding` gives them.
        values: what was seen; scaled inside.

    Example:
        >>> model = RidgeEnsemble.fit(np.eye(3), np.array([1.0, 2.0, 4.0]))
        >>> mean, deviation = model.predict(np.eye(3))
        >>> bool(mean[0] < mean[1] < mean[2])
        True
    """

    features: Matrix
    weights: Matrix  # (seen, members)
    center: float
    spread: float

    @classmethod
    def fit(cls, features: Matrix, values: Matrix) -> "RidgeEnsemble":
        """The ensemble for what was seen; the same for the same."""
        number = len(values)
        center, spread = float(values.mean()), float(values.std()) or 1.0
        scaled = (values - center) / spread
        similar = kernel(features @ features.T, _SCALE)
        random = np.random.default_rng(number)
        weights = np.zeros((number, _MEMBERS))
        for member in range(_MEMBERS):
            rows = random.integers(number, size=number)
            own = similar[np.ix_(rows, rows)] + _RIDGE * np.eye(number)
            np.add.at(weights[:, member], rows, np.linalg.solve(own, scaled[rows]))
        return cls(features, weights, center, spread)

    def predict(self, features: Matrix, pending: Matrix | None = None) -> tuple[Matrix, Matrix]:
        """Mean and standard deviation of the members for other architectures.

        Args:
            pending: architectures whose values will be seen, so that not much is left to learn from their like.
        """
        said = kernel(features @ self.features.T, _SCALE) @ self.weights
        deviation = said.std(axis=1)
        if pending is not None and len(pending):
            nearest = kernel(features @ pending.T, _SCALE).max(axis=1)
            deviation = deviation * np.sqrt((1 - nearest**2).clip(0))
        return self.center + self.spread * said.mean(axis=1), self.spread * deviation
