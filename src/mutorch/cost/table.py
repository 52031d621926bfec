"""The costs of every architecture of a space, as tables built once: counted ones are exact."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mutorch.errors import CostError, nearest
from mutorch.mutators import Mutator
from mutorch.space import Architecture, Choice, SearchSpace
from mutorch.utils import ExampleInputs

from .allowed import Allowed
from .builder import FactorsBuilder
from .count import MEGABYTE, METRICS, Costs
from .factors import Codes, Factors
from .latency_fit import PICOSECONDS
from .latency_table import LatencyTable
from .observe import Convention

_SOURCE = {"macs": ("flops", 2), "flops": ("flops", 1), "params": ("params", 1)} | {
    "act_mem_mb": ("activation_bytes", MEGABYTE),
    "size_mb": ("bytes", MEGABYTE),
}
"""Where a metric comes from: a table of integers, and what to divide it by."""


@dataclass(frozen=True, slots=True)
class CostTable:
    """What every architecture of a space costs, exactly: a candidate costs microseconds, a million one numpy call.

    Built from a handful of observed forwards: one that runs every candidate, and, where values or candidates change the
    shapes that later layers see, one for each combination that matters. Equal to counting the exported model.

    The widths of a searchable model need one forward with all channels: what an operation costs is a product of sizes, and
    how many channels of each are kept is known at every choice. Only where a single channel is kept, and where that changes
    what runs, is it run; a few random subnets are counted directly in any case.

    Attributes:
        space: the space whose architectures it prices.
        uncounted: operations that have no formula and count as none, by how often they ran.
        measured: predicted metrics that `with_metric` added, such as `latency_ms`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from mutorch.mutables import OneShotMutableOP
        >>> op = OneShotMutableOP({"conv": nn.Conv2d(4, 4, 1, bias=False), "skip": nn.Identity()})
        >>> table = CostTable.from_model(Mutator(nn.Sequential(op)), torch.zeros(1, 4, 2, 2))
        >>> table({"0": "conv"}).macs, table({"0": "skip"}).macs
        (64, 0)
    """

    space: SearchSpace
    uncounted: Mapping[str, int]
    _factors: Mapping[str, Factors]
    measured: Mapping[str, LatencyTable] = field(default_factory=dict)
    _allowed: Allowed = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_allowed", Allowed(self.space))

    @classmethod
    def from_model(
        cls,
        mutator: Mutator,
        example_inputs: ExampleInputs,
        *,
        convention: Convention = "mac",
        max_observations: int = 2000,
        num_checks: int = 4,
    ) -> "CostTable":
        """The table of the mutator's model. The model is as before afterwards.

        Args:
            example_inputs: counted as given: use a batch of one for costs per sample.
            convention: see `count`.
            max_observations: how many forwards may be spent on decisions that act on each other.
            num_checks: how many random architectures are counted directly and compared, and searched for decisions that
                hide each other.

        Errors:
            CostError: decisions that act on each other in too many combinations, or in a way that the table misses;
                they are named.
        """
        builder = FactorsBuilder(mutator, example_inputs, convention, max_observations)
        with mutator.at(mutator.space.default):
            factors = builder.build(num_checks)
        return cls(mutator.space, builder.uncounted, factors)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What a budget with this table can bound: `METRICS`, and what was measured."""
        return (*METRICS, *self.measured)

    def with_metric(self, name: str, table: LatencyTable) -> "CostTable":
        """The same table, which knows what was measured as well: budgets and costs then have `name`.

        Args:
            name: `latency_ms`, say, or another one where several machines were measured.

        Errors:
            CostError: the name of what is counted, or a table of another space.

        Example:
            >>> import torch
            >>> from torch import nn
            >>> from mutorch.mutables import OneShotMutableOP
            >>> net = nn.Sequential(OneShotMutableOP({"conv": nn.Conv2d(4, 4, 1, bias=False), "skip": nn.Identity()}))
            >>> counted = CostTable.from_model(Mutator(net), torch.zeros(1, 4, 2, 2))
            >>> measured = [({"0": "conv"}, 2.0), ({"0": "skip"}, 1.0)] * 2
            >>> table = counted.with_metric("latency_ms", LatencyTable.fit(counted.space, *zip(*measured), measured_on="paper"))
            >>> round(table({"0": "conv"})["latency_ms"], 6), table.metrics[-1]
            (2.0, 'latency_ms')
        """
        if not isinstance(name, str) or not name or name in METRICS:
            raise CostError(f"a measured metric has a name of its own, such as 'latency_ms', got {name!r}")
        if not isinstance(table, LatencyTable):
            raise CostError(f"{name} is given as a LatencyTable, got {type(table).__name__}")
        if table.space.fingerprint != self.space.fingerprint:
            raise CostError(
                f"the table of {name} is of another space ({table.space.fingerprint}, and this one is "
                f"{self.space.fingerprint}); measure subnets of this one"
            )
        return replace(self, measured={**self.measured, name: table}, _factors={**self._factors, name: table.factors})

    def __call__(self, architecture: Mapping[str, Choice]) -> Costs:
        """The costs of one architecture.

        Errors:
            SpaceError, ChoiceError: not an architecture of the space.
        """
        codes = np.array([self.space.encode(architecture)], dtype=np.intp)
        value = {metric: self.evaluate(codes, metric)[0] for metric in ("macs", "params", "act_mem_mb", "size_mb")}
        measured = {name: float(self.evaluate(codes, name)[0]) for name in self.measured}
        counted = int(value["macs"]), int(value["params"]), float(value["act_mem_mb"]), float(value["size_mb"])
        return Costs(*counted, measured)

    def evaluate(self, codes: Codes, metric: str) -> NDArray[np.number]:
        """One metric of many architectures.

        Args:
            codes: an integer array (architectures, decisions) as `SearchSpace.encode` numbers choices.
            metric: one of `metrics`.
        """
        return self.scaled(metric, self.factors(metric).evaluate(codes))

    def factors(self, metric: str) -> Factors:
        """The integers behind a metric, as a function of codes: bytes for megabytes, picoseconds for milliseconds."""
        return self._factors[self._metric(metric)[0]]

    def scaled(self, metric: str, raw: NDArray[np.int64]) -> NDArray[np.number]:
        """The values of a metric, of the integers behind it."""
        _, divisor = self._metric(metric)
        return raw // divisor if metric in ("macs", "flops", "params") else raw / divisor

    def cheapest(self, metric: str = "macs") -> Architecture:
        """The architecture with the smallest value of `metric`, exactly.

        Where constraints of the space tie decisions with more than 100,000 combinations together, and rule the smallest
        one out, it is the smallest that changing one decision after another finds: allowed, but maybe not the smallest.
        """
        return self._smallest(self.factors(metric))[0]

    def largest(self, metric: str = "macs") -> Architecture:
        """The architecture with the largest value of `metric`, exactly, or as `cheapest` under constraints."""
        return self._smallest(self.factors(metric).negated())[0]

    def reachable(self, metric: str) -> tuple[float, float]:
        """The smallest and largest value of `metric` in the space.

        Where `cheapest` or `largest` is not exact, what the space would reach without its constraints.
        """
        factors = self.factors(metric)
        found = []
        for one in (factors, factors.negated()):
            architecture, is_exact = self._smallest(one)
            bound = self.evaluate(np.array([one.minimum()]), metric)[0]
            found.append(self(architecture)[metric] if is_exact else float(bound))
        return found[0], found[1]

    def _smallest(self, factors: Factors) -> tuple[Architecture, bool]:
        """The architecture at which `factors` are smallest, and whether that is certain."""
        codes = factors.minimum()
        if self._allowed.mask(np.array([codes]))[0]:
            return self.space.canonical(self.space.decode(codes)), True
        try:
            return self.space.canonical(self.space.decode(self._allowed.added_to(factors).minimum())), True
        except CostError:
            return self._descended(factors, self.space.repair(self.space.decode(codes))), False

    def _descended(self, factors: Factors, start: Architecture) -> Architecture:
        """Where changing one decision after another leads, always the one that helps most."""
        best = self.space.canonical(start)
        value = factors.evaluate(np.array([self.space.encode(best)]))[0]
        while neighbours := self.space.neighbours(best):
            values = factors.evaluate(np.array([self.space.encode(neighbour) for neighbour in neighbours]))
            if values.min() >= value:
                break
            best, value = neighbours[int(values.argmin())], values.min()
        return best

    def _metric(self, metric: str) -> tuple[str, int]:
        if metric in self.measured:
            return metric, PICOSECONDS
        if metric not in _SOURCE:
            hint = "; latency is measured: see mutorch.latency_table" if "latency" in str(metric) else ""
            raise CostError(f"no metric {metric!r}; {nearest(metric, self.metrics)}{hint}")
        return _SOURCE[metric]
