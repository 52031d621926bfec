"""Predicted latency of every architecture of a space."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutorch.errors import CostError, LoadError
from mutorch.space import Architecture, Choice, SearchSpace
from mutorch.utils import whole_file

from .factors import Codes, Factors
from .latency_fit import PICOSECONDS, Accuracy, fit

VERSION = 1


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Milliseconds of every architecture of a space, predicted from few measured ones, and how far to trust that.

    A sum of small tables, as counted costs are: a million architectures are one numpy call, and the fastest one is found
    exactly. `mutorch.latency_table` measures and builds one; `LatencyTable.fit` takes what was measured elsewhere.

    Attributes:
        space: the space whose architectures it predicts.
        factors: the tables, in integer picoseconds.
        accuracy: what cross-validation says of it.
        measured_on: runtime, device and machine, in words.
        terms: what the sum is made of, in words.
        tolerance: the relative error up to which a bound on this latency is accepted, of nine of ten architectures.

    Example:
        >>> from mutorch.space import Decision
        >>> space = SearchSpace([Decision("op", ("conv", "skip")), Decision("size", (3, 5, 7))])
        >>> cost = {"conv": 4.0, "skip": 1.0}
        >>> measured = [(a, cost[a["op"]] + a["size"] / 2) for a in space.grid()]
        >>> table = LatencyTable.fit(space, *zip(*measured), measured_on="paper")
        >>> round(table({"op": "skip", "size": 7}), 6), table.accuracy.rank_correlation
        (4.5, 1.0)
    """

    space: SearchSpace
    factors: Factors
    accuracy: Accuracy
    measured_on: str
    terms: str = "each choice"
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise CostError(f"a tolerance is a relative error above 0, such as 0.1, got {self.tolerance!r}")

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        architectures: Sequence[Mapping[str, Choice]],
        milliseconds: Sequence[float],
        *,
        measured_on: str,
        costs: Mapping[str, Factors] | None = None,
        tolerance: float = 0.1,
        seed: int = 0,
    ) -> "LatencyTable":
        """The table of measured architectures; one may be there several times.

        Args:
            measured_on: in words, for those who read the table.
            costs: counted costs to which latency may be proportional, such as `CostTable.factors` has.
            seed: of the cross-validation.

        Errors:
            CostError: fewer than two measurements, or a latency that is not above 0.
            SpaceError, ChoiceError: not an architecture of the space.
        """
        times = np.array([float(one) for one in milliseconds])
        if len(times) != len(architectures) or len(times) < 2:
            raise CostError(
                f"a latency for each architecture, of at least two: got {len(architectures)} architectures and "
                f"{len(times)} latencies"
            )
        if not (np.isfinite(times) & (times > 0)).all():
            raise CostError(f"a latency is a positive number of milliseconds, got {times.min()}")
        codes = np.array([space.encode(space.canonical(architecture)) for architecture in architectures])
        fitted = fit(space, codes, times, costs=costs or {}, seed=seed)
        return cls(space, fitted.factors, fitted.accuracy, measured_on, fitted.terms, tolerance)

    def __call__(self, architecture: Mapping[str, Choice]) -> float:
        """The predicted milliseconds of one architecture.

        Errors:
            SpaceError, ChoiceError: not an architecture of the space.
        """
        return float(self.evaluate(np.array([self.space.encode(architecture)]))[0])

    def evaluate(self, codes: Codes) -> NDArray[np.float64]:
        """The predicted milliseconds of many; `codes` as in `CostTable.evaluate`."""
        return self.factors.evaluate(codes) / PICOSECONDS

    @property
    def fastest(self) -> Architecture:
        """The architecture that is predicted to be the fastest, constraints of the space aside."""
        return self.space.decode(self.factors.minimum())

    @property
    def refusal(self) -> str | None:
        """Why a bound on this latency would mean nothing; `None` where it means something."""
        if self.accuracy.large_error > self.tolerance:
            return f"its predictions are {self.accuracy}, and its tolerance is {self.tolerance:.1%} for nine of ten"
        return None

    def with_tolerance(self, tolerance: float) -> "LatencyTable":
        """The same table, which accepts bounds up to another error."""
        return replace(self, tolerance=tolerance)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it."""
        tables = [[list(key), table.tolist()] for key, table in self.factors.tables.items()]
        return {
            "version": VERSION,
            "space": self.space.fingerprint,
            "picoseconds": tables,
            "accuracy": asdict(self.accuracy),
            "measured_on": self.measured_on,
            "terms": self.terms,
            "tolerance": self.tolerance,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], space: SearchSpace) -> "LatencyTable":
        """The table that `to_dict` described.

        Args:
            space: the one that it was built for, such as `mutator.space`.

        Errors:
            LoadError: no table of latencies, or one of another space.
        """
        try:
            if data["version"] != VERSION:
                raise LoadError(f"a table of latencies has version {VERSION}, got {data['version']!r}")
            if data["space"] != space.fingerprint:
                raise LoadError(
                    f"these latencies were measured for another space ({data['space']}, and this one is "
                    f"{space.fingerprint}): its decisions or choices differ; measure this one"
                )
            counts = tuple(len(decision.choices) for decision in space)
            tables = {tuple(key): np.array(table, dtype=np.int64) for key, table in data["picoseconds"]}
            accuracy = Accuracy(**data["accuracy"])
            factors = Factors(counts, tables)
            return cls(space, factors, accuracy, data["measured_on"], data["terms"], data["tolerance"])
        except (KeyError, TypeError, ValueError) as error:
            raise LoadError(f"no table of latencies: {type(error).__name__} {error}") from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON."""
        with whole_file(path) as partial:
            partial.write_text(json.dumps(self.to_dict()), encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], space: SearchSpace) -> "LatencyTable":
        """The table that `save` wrote; errors as in `from_dict`."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise LoadError(f"{path} is no table of latencies: {error}") from error
        return cls.from_dict(data, space)

    def __str__(self) -> str:
        return f"latency of {len(self.space)} decisions, measured on {self.measured_on}: {self.accuracy} (a sum of: {self.terms})"
