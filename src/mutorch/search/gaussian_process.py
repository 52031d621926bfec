"""A small Gaussian process over encoded architectures: what an architecture scores, and how sure that is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Matrix = NDArray[np.floating[Any]]

_SCALES = (0.1, 0.3, 1.0)
_NOISES = (0.02, 0.1, 0.3, 1.0)


@dataclass(frozen=True, slots=True)
class GaussianProcess:
    """The mean of all functions that explain what was seen, weighted by how well they do, and how much they differ.

    Half of a function is linear in the features: each decision adds something. The other half is smooth: decisions act on each
    other. How far it reaches and how noisy what was seen is, is what makes that likeliest, of a few settings.

    Args:
        features: as `Encoding` gives them.
        values: what was seen; scaled inside.

    Example:
        >>> model = GaussianProcess.fit(np.eye(3), np.array([1.0, 2.0, 4.0]))
        >>> mean, deviation = model.predict(np.eye(3))
        >>> bool(mean[0] < mean[1] < mean[2])
        True
    """

    features: Matrix
    scale: float
    noise: float
    factor: Matrix  # the Cholesky factor of what the values have in common
    whitened: Matrix
    center: float
    spread: float

    @classmethod
    def fit(cls, features: Matrix, values: Matrix) -> "GaussianProcess":
        """The process for what was seen."""
        center = float(values.mean())
        shifted = values - center
        similar = features @ features.T
        settings = [(scale, noise) for scale in _SCALES for noise in _NOISES]
        scale, noise = max(settings, key=lambda setting: _likelihood(shifted, _common(similar, *setting)))
        factor = np.linalg.cholesky(_common(similar, scale, noise))
        whitened = _solved(factor, shifted[:, None])[:, 0]
        spread = float(np.sqrt((whitened**2).mean())) or 1.0
        return cls(features, scale, noise, factor, whitened, center, spread)

    def predict(self, features: Matrix, pending: Matrix | None = None) -> tuple[Matrix, Matrix]:
        """Mean and standard deviation for other architectures.

        Args:
            pending: architectures whose values will be seen, so that not much is left to learn from their like.
        """
        common = _solved(self.factor, kernel(self.features @ features.T, self.scale))
        mean = self.center + common.T @ self.whitened
        variance = 1.0 - (common**2).sum(axis=0)
        if pending is not None and len(pending):
            own = _solved(self.factor, kernel(self.features @ pending.T, self.scale))
            among = kernel(pending @ pending.T, self.scale) - own.T @ own + self.noise * np.eye(len(pending))
            left = kernel(pending @ features.T, self.scale) - own.T @ common
            variance = variance - (left * np.linalg.solve(among, left)).sum(axis=0)
        return mean, self.spread * np.sqrt(variance.clip(1e-12))


def kernel(similar: Matrix, scale: float) -> Matrix:
    """What the values of architectures have in common that are so similar: half of it adds up by decisions, half is smooth."""
    return np.asarray(0.5 * similar + 0.5 * np.exp((similar - 1) / scale))


def _common(similar: Matrix, scale: float, noise: float) -> Matrix:
    return kernel(similar, scale) + noise * np.eye(len(similar))


def _likelihood(shifted: Matrix, common: Matrix) -> float:
    """The logarithm of how likely the values are, at the amplitude that makes them likeliest."""
    factor = np.linalg.cholesky(common)
    whitened = _solved(factor, shifted[:, None])
    return float(-0.5 * len(shifted) * np.log((whitened**2).mean() + 1e-24) - np.log(np.diag(factor)).sum())


def _solved(factor: Matrix, right: Matrix) -> Matrix:
    """NumPy has none that knows what is zero."""
    solved = torch.linalg.solve_triangular(torch.from_numpy(factor), torch.from_numpy(right), upper=False)
    return np.asarray(solved.numpy())
