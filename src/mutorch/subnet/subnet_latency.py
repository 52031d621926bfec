"""The measured latency of architectures: of their exported subnets."""

import statistics
from collections.abc import Mapping, Sequence

from torch import nn

from mutorch.cost import ExampleInputs, Measured
from mutorch.cost.latency import warn_if_noisy
from mutorch.mutators import Mutator
from mutorch.space import Choice

from .export import export
from .latency import LatencyRunner

GROUP = 8
"""How many subnets take turns, and are in memory at the same time, besides the one that all are compared with."""


class SubnetLatency:
    """Measures the exported subnets of one net; called with an architecture, each is measured once.

    In every turn one subnet, always the same, is measured as well. What the machine does to it (slows down, warms up, has
    something else to do) is taken out of the others.

    Args:
        net, mutator: what to export from.
        runner: how to measure; eagerly where the net is, unless given.

    Example:
        >>> import torch
        >>> from mutorch.mutables import OneShotMutableOP
        >>> net = nn.Sequential(OneShotMutableOP({"one": nn.Linear(1, 1), "two": nn.Sequential(nn.Linear(1, 1), nn.ReLU())}))
        >>> layers = LatencyRunner(lambda model, inputs: len(list(model.modules())))
        >>> SubnetLatency(net, Mutator(net), torch.zeros(1, 1), layers)({"0": "two"}).median_ms
        4.0
    """

    def __init__(
        self, net: nn.Module, mutator: Mutator, example_inputs: ExampleInputs, runner: LatencyRunner | None = None
    ) -> None:
        self.net = net
        self.mutator = mutator
        self.example_inputs = example_inputs
        self.runner = LatencyRunner() if runner is None else runner
        self._known: dict[tuple[int, ...], Measured] = {}
        self._reference_ms: float | None = None

    def __call__(self, architecture: Mapping[str, Choice]) -> Measured:
        """The latency of one architecture; what was measured before is not measured again.

        Errors:
            SpaceError, ChoiceError: not an architecture of the space.
            MeasureError, ConfigError: see `LatencyRunner`.
        """
        codes = self._codes(architecture)
        if codes not in self._known:
            self.measure([architecture])
        return self._known[codes]

    def measure(self, architectures: Sequence[Mapping[str, Choice]]) -> list[Measured]:
        """The latencies of several, all measured now. Errors as above."""
        space = self.mutator.space
        codes = [self._codes(architecture) for architecture in architectures]
        if not codes:
            return []
        reference = export(self.net, space.default, mutator=self.mutator)
        found: list[Measured] = []
        drift: list[float] = []
        for start in range(0, len(codes), GROUP):
            group = [export(self.net, space.decode(one), mutator=self.mutator) for one in codes[start : start + GROUP]]
            first, *others = self.runner.in_turns([reference, *group], self.example_inputs)
            found += others
            drift += [first.median_ms] * len(group)
        if self._reference_ms is None:
            self._reference_ms = statistics.median(drift)
        steady = [one.scaled(self._reference_ms / now) for one, now in zip(found, drift, strict=True)]
        warn_if_noisy(steady)
        self._known |= dict(zip(codes, steady, strict=True))
        return steady

    def _codes(self, architecture: Mapping[str, Choice]) -> tuple[int, ...]:
        space = self.mutator.space
        return space.encode(space.canonical(architecture))
