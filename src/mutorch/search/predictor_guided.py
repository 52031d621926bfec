"""Search guided by a model of the results so far."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mutorch.errors import ConfigError, nearest
from mutorch.space import Architecture, random_at

from .encoding import Codes, Encoding
from .feasible import Feasible
from .gaussian_process import GaussianProcess, Matrix
from .history import Trial
from .region import Region
from .ridge_ensemble import RidgeEnsemble
from .survivors import survivors

Values = NDArray[np.float64]


class Model(Protocol):
    """What predicts: a Gaussian process or an ensemble."""

    @classmethod
    def fit(cls, features: Matrix, values: Matrix) -> "Model":
        """The model for what was seen."""

    def predict(self, features: Matrix, pending: Matrix | None = None) -> tuple[Matrix, Matrix]:
        """Mean and standard deviation for other architectures; those that are pending count as known."""


MODELS: Mapping[str, type[Model]] = {"process": GaussianProcess, "ensemble": RidgeEnsemble}
"""What `PredictorGuided` may learn with."""
_CHANGES = (1, 2, 4, 8)
"""How many decisions the mutations of the pool change, on average."""


class PredictorGuided:
    """Evaluates what a model of the results so far thinks best, and is not too sure of.

    In the spirit of BANANAS (White et al. 2019, arXiv 1910.11858): random architectures first; then a model is fitted to what was
    told, and of a pool of mutations and crossovers of the best and of random architectures the one with the highest upper
    confidence bound is asked for. The model is a Gaussian process over `Encoding`, or an ensemble of regressions. What was asked for and not told yet counts as known, so that several
    asked for at once differ. With several objectives, each has a model, and every ask weighs them anew at random (ParEGO, Knowles
    2006). Constraints have a model too, whose predictions are a penalty.

    Args:
        feasible, seed: see `StrategyFactory`.
        model: `"process"` (a Gaussian process) or `"ensemble"` (ridge regressions of resamples, which do nearly as well).
        starts: how many architectures are random at first.
        pool: how many candidates are predicted for every ask.
        elite: how many of the best are mutated.
        confidence: how many standard deviations the bound is above the mean: more explores more.
        max_trials: how many trials a model is fitted to at most: half of them the best, the others evenly from all.

    Errors:
        ConfigError: an unknown model, or numbers that are too small.
    """

    def __init__(
        self,
        feasible: Feasible,
        seed: int,
        *,
        model: str = "process",
        starts: int = 8,
        pool: int = 256,
        elite: int = 10,
        confidence: float = 1.0,
        max_trials: int = 512,
    ) -> None:
        if model not in MODELS:
            raise ConfigError(f"no model {model!r}; {nearest(model, MODELS)}")
        for name, value, least in (
            ("starts", starts, 2),
            ("pool", pool, 1),
            ("elite", elite, 1),
            ("max_trials", max_trials, 8),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        self._model = MODELS[model]
        self._feasible = feasible
        self._seed = seed
        self._starts, self._pool, self._elite = starts, pool, elite
        self._confidence, self._max_trials = confidence, max_trials
        self._region = Region(feasible.space, feasible.table, feasible.budget)
        self._encoding = Encoding(feasible.space)
        self._asked: list[tuple[int, ...]] = []
        self._seen: set[tuple[int, ...]] = set()
        self._told: list[Trial] = []
        self._best: list[Trial] = []
        self._models: list[Model] = []
        self._violation: Model | None = None
        self._fitted = 0
        self._range = np.zeros((2, 1))

    def ask(self) -> Architecture | None:
        random = random_at(self._seed, "predictor guided", len(self._asked))
        architecture = None
        if len(self._asked) >= self._starts and len(self._told) >= 2:
            architecture = self._predicted(np.random.default_rng(random.getrandbits(64)))
        if architecture is None:
            architecture = self._feasible.draw(random)
        if architecture is not None:
            self._asked.append(self._feasible.space.encode(architecture))
            self._seen.add(self._asked[-1])
        return architecture

    def tell(self, trial: Trial) -> None:
        self._told.append(trial)
        self._best = survivors([*self._best, trial], self._elite)

    def _predicted(self, random: np.random.Generator) -> Architecture | None:
        """The best of the pool; `None` where nothing in it is new."""
        codes = self._candidates(random)
        if not len(codes):
            return None
        if len(self._told) >= self._fitted + 1 + self._fitted // 32:
            self._fit()
        pending = self._encoding.features(
            np.array(self._asked[self._fitted :], dtype=np.int64).reshape(-1, codes.shape[1])
        )
        features = self._encoding.features(codes)
        bounds = []
        for model in self._models:
            mean, deviation = model.predict(features, pending)
            bounds.append(mean + self._confidence * deviation)
        score = self._weighed(np.array(bounds).T, random)
        if self._violation is not None:
            score = score - 3 * self._violation.predict(features)[0].clip(0)
        # Rounded, so that the last bits, in which machines differ, decide nothing.
        for place in np.argsort(-score.round(9), kind="stable"):
            architecture = self._feasible.accept(self._feasible.space.decode(codes[place].tolist()))
            if architecture is not None:
                return architecture
        return None

    def _candidates(self, random: np.random.Generator) -> Codes:
        """Feasible architectures that were not asked for."""
        space = self._feasible.space
        best = np.array([space.encode(trial.architecture) for trial in self._best])
        size, width = self._pool, best.shape[1]
        children = best[random.integers(len(best), size=size)]
        mates = best[random.integers(len(best), size=size // 4)]
        children[: size // 4] = np.where(random.random(mates.shape) < 0.5, mates, children[: size // 4])
        other = self._region.random(random, size)
        rates = np.resize(_CHANGES, size)[:, None] / width
        children = np.where(random.random(children.shape) < rates, other, children)
        codes = self._encoding.canonical(np.concatenate([children, self._region.random(random, size // 4)]))
        codes = np.unique(codes[self._region.within(codes)], axis=0)
        return codes[[tuple(row) not in self._seen for row in codes.tolist()]]

    def _fit(self) -> None:
        trials = self._chosen()
        self._fitted = len(self._told)
        features = self._encoding.features(
            np.array([self._feasible.space.encode(trial.architecture) for trial in trials])
        )
        values = np.array([trial.values for trial in trials])
        columns = [_without_depths(column) for column in values.T]
        self._models = [self._model.fit(features, column) for column in columns]
        low, high = np.min(columns, axis=1), np.max(columns, axis=1)
        self._range = np.array([low, np.where(high > low, high, low + 1)])
        missed = _missed(trials)
        self._violation = self._model.fit(features, missed) if missed.any() else None

    def _chosen(self) -> list[Trial]:
        if len(self._told) <= self._max_trials:
            return self._told
        half = self._max_trials // 2
        best = sorted(self._told, key=lambda trial: trial.key)[:half]
        taken = {trial.index for trial in best}
        others = [trial for trial in self._told if trial.index not in taken]
        return [*best, *(others[place * len(others) // half] for place in range(half))]

    def _weighed(self, bounds: Values, random: np.random.Generator) -> Values:
        """One number for each candidate, in units of the range of what was told."""
        low, high = self._range
        scaled = (bounds - low) / (high - low)
        if scaled.shape[1] == 1:
            return np.asarray(scaled[:, 0])
        weights = random.dirichlet(np.ones(scaled.shape[1]))
        return np.asarray((weights * (scaled - 1)).min(axis=1) + 0.05 * (weights * scaled).sum(axis=1))


def _without_depths(column: Values) -> Values:
    """The values, those far below the middle lifted: a model shall tell the good ones apart, not the bad ones."""
    known = column[np.isfinite(column)]
    if not len(known):
        return np.zeros(len(column))
    middle, best = float(np.median(known)), float(known.max())
    return np.asarray(np.nan_to_num(column, neginf=-np.inf).clip(middle - 2 * (best - middle), best))


def _missed(trials: Sequence[Trial]) -> Values:
    """How far constraints are missed, in units of what is usual; what failed misses them by two."""
    missed = np.array([trial.violation for trial in trials])
    usual = np.median(missed[missed > 0]) if (missed > 0).any() else 1.0
    missed = np.where(np.isfinite(missed), missed / (usual if np.isfinite(usual) else 1.0), 2.0).clip(0, 2)
    return np.where([trial.error is not None for trial in trials], 2.0, missed)
