"""What was predicted, measured again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mutorch.cost import Budget, CostTable, ExampleInputs, LatencyTable, Measured
from mutorch.errors import BudgetError, CostError, nearest
from mutorch.mutators import Mutator
from mutorch.space import Architecture, Choice

from .latency import LatencyRunner
from .subnet_latency import SubnetLatency


@dataclass(frozen=True, slots=True)
class Remeasured:
    """One architecture, measured; `print` it for a line.

    Attributes:
        architecture: in canonical form.
        measured: its latency; `measured.median_ms`, `measured.spread`.
        predicted_ms: what the table says; `None` without one.
        within: whether the measured median meets the bound; `None` without one.
    """

    architecture: Architecture
    measured: Measured
    predicted_ms: float | None = None
    within: bool | None = None

    @property
    def off(self) -> float | None:
        """How far the measured median is above the prediction, relative to it; `None` without a prediction."""
        return None if self.predicted_ms is None else self.measured.median_ms / self.predicted_ms - 1

    def __str__(self) -> str:
        parts = [f"measured {self.measured}"]
        if self.off is not None:
            parts.append(f"predicted {self.predicted_ms:.4g} ms ({self.off:+.1%})")
        if self.within is not None:
            parts.append("within the bound" if self.within else "OUTSIDE of the bound")
        return ", ".join(parts)


def remeasure(
    net: nn.Module,
    mutator: Mutator,
    architectures: Sequence[Mapping[str, Choice]],
    runner: LatencyRunner,
    example_inputs: ExampleInputs,
    *,
    table: CostTable | LatencyTable | None = None,
    budget: Budget | Mapping[str, Any] | None = None,
    metric: str = "latency_ms",
    top: int | None = None,
) -> list[Remeasured]:
    """The measured latency of the exported subnets of some architectures, all in turns, beside what was predicted.

    Args:
        architectures: best first, such as `[trial.architecture for trial in history.top(5)]`.
        table: what predicted them.
        budget: whose bound on `metric` to compare with; bounds on other metrics are not looked at. A dict needs a `CostTable`.
        metric: the name of this latency in the table and the budget.
        top: how many, from the front; all unless given.

    Returns:
        A record for each, in the given order.

    Errors:
        BudgetError: a budget that cannot be read, or one without a table where it needs one.
        CostError: a table that does not know the metric.
        ConfigError, MeasureError, SpaceError: see `LatencyRunner` and `export`.

    Example:
        >>> import torch
        >>> from mutorch.mutables import OneShotMutableOP
        >>> net = nn.Sequential(OneShotMutableOP({"linear": nn.Linear(2, 2), "skip": nn.Identity()}))
        >>> board = LatencyRunner(lambda model, inputs: 1.5 + sum(p.numel() for p in model.parameters()))
        >>> limit = Budget({"latency_ms": (0.0, 5.0)})
        >>> for one in remeasure(net, Mutator(net), [{"0": "linear"}, {"0": "skip"}], board, torch.zeros(1, 2), budget=limit):
        ...     print(one.measured.median_ms, one.within)
        7.5 False
        1.5 True
    """
    chosen = [mutator.space.canonical(architecture) for architecture in architectures[:top]]
    predictions = _predictor(table, metric)
    bounds = _bounds(budget, table, metric)
    measured = SubnetLatency(net, mutator, example_inputs, runner).measure(chosen)
    return [
        Remeasured(
            architecture,
            one,
            None if predictions is None else predictions(architecture),
            None if bounds is None else bounds[0] <= one.median_ms <= bounds[1],
        )
        for architecture, one in zip(chosen, measured, strict=True)
    ]


def _predictor(table: CostTable | LatencyTable | None, metric: str) -> LatencyTable | None:
    if not isinstance(table, CostTable):
        return table
    table.factors(metric)  # an error that names the metrics there are
    if metric not in table.measured:
        raise CostError(f"{metric!r} is counted, not measured; {nearest(metric, table.measured)}")
    return table.measured[metric]


def _bounds(
    budget: Budget | Mapping[str, Any] | None, table: CostTable | LatencyTable | None, metric: str
) -> tuple[float, float] | None:
    if budget is None or isinstance(budget, Budget):
        return None if budget is None else budget.bounds.get(metric)
    if not isinstance(table, CostTable):
        raise BudgetError("a budget that is a dict needs a CostTable to be read: give Budget.parse(budget, table)")
    return Budget.parse(budget, table).bounds.get(metric)
