"""Bounds on costs, in the user's units."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mutorch.errors import BudgetError, InfeasibleBudgetError, nearest

from .count import Costs
from .factors import Codes
from .latency_table import LatencyTable
from .table import CostTable

_SUFFIX = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_AMOUNT = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kKMGBT]?)(%?)\s*$", re.IGNORECASE)

BudgetSpec = Mapping[str, Any]
"""Metric to bound: `{"macs": "300M", "params": "50%", "size_mb": (1, 4)}`."""


class Priced(Protocol):
    """What a budget is read for: a `CostTable`, or another thing that knows its metrics and how far they reach."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """What can be bounded."""

    @property
    def measured(self) -> Mapping[str, LatencyTable]:
        """Those of the metrics that are predicted from measurements."""

    def reachable(self, metric: str) -> tuple[float, float]:
        """The smallest and the largest value."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Lower and upper bounds on metrics, inclusive, all of which must hold.

    A bound is an upper bound (a number or a text), or a pair `(lower, upper)` of which one may be `None`. An amount is a
    number (`300e6`), a text with a suffix (`"300M"`, `"1.5G"`, `"20k"`), or a share (`"50%"`) of the most expensive
    architecture of the space. The metrics are those of the table: macs are multiply-adds, flops two per mac, a megabyte 10^6
    bytes; milliseconds of measured latency where `CostTable.with_metric` added them.

    Attributes:
        bounds: metric to (lower, upper) in plain units.
    """

    bounds: Mapping[str, tuple[float, float]]

    @classmethod
    def parse(cls, spec: "BudgetSpec | Budget | None", table: Priced) -> "Budget":
        """The budget that `spec` writes, for the space of `table`.

        Errors:
            BudgetError: an unknown metric, an amount that cannot be read, or lower above upper.
            BudgetError: also where predictions of a measured metric are worse than their tolerance.
            InfeasibleBudgetError: a metric whose bounds no architecture meets; says what is reachable.
        """
        if isinstance(spec, Budget):
            budget = spec
        elif spec is None or isinstance(spec, Mapping):
            budget = cls({metric: _bounds(metric, bound, table) for metric, bound in (spec or {}).items()})
        else:
            raise BudgetError(f'a budget is a dict such as {{"macs": "50%"}}, got {type(spec).__name__}')
        for metric, (low, high) in budget.bounds.items():
            _check_metric(metric, table)
            smallest, largest = table.reachable(metric)
            if metric in table.measured and smallest <= 0:
                raise BudgetError(
                    f"{metric} cannot be bounded by its table: it predicts {smallest:.4g} for some architecture, which nothing "
                    "takes; measure more architectures (num_samples)"
                )
            if high < smallest or low > largest:
                wanted = f"at most {_show(high)}" if high < smallest else f"at least {_show(low)}"
                source = table.measured.get(metric)
                found = (
                    "counted for the example inputs as given"
                    if source is None
                    else f"predicted for {source.measured_on}"
                )
                raise InfeasibleBudgetError(
                    f"no architecture has {metric} of {wanted}: the space reaches from {_show(smallest)} to "
                    f"{_show(largest)}, {found}"
                )
        return budget

    def allows(self, costs: Costs) -> bool:
        """Whether these costs are within all bounds."""
        return all(low <= costs[metric] <= high for metric, (low, high) in self.bounds.items())

    def mask(self, table: CostTable, codes: Codes) -> NDArray[np.bool_]:
        """Which of many architectures are within all bounds; `codes` as in `CostTable.evaluate`."""
        within = np.ones(len(codes), dtype=np.bool_)
        for metric, (low, high) in self.bounds.items():
            values = table.evaluate(codes, metric)
            within &= (values >= low) & (values <= high)
        return within

    def excess(self, table: CostTable, codes: Codes) -> NDArray[np.float64]:
        """How far each architecture is outside, as the sum of relative distances to the bounds; 0 inside."""
        total = np.zeros(len(codes))
        for metric, (low, high) in self.bounds.items():
            values = table.evaluate(codes, metric).astype(np.float64)
            for bound, distance in ((high, values - high), (low, low - values)):
                if np.isfinite(bound):
                    total += np.maximum(distance, 0) / max(abs(bound), 1e-12)
        return total

    def to_dict(self) -> dict[str, list[float | None]]:
        """JSON-able bounds, for logs."""
        return {
            metric: [None if not np.isfinite(bound) else bound for bound in pair]
            for metric, pair in self.bounds.items()
        }

    def __str__(self) -> str:
        parts = []
        for metric, (low, high) in self.bounds.items():
            below = f"{_show(low)} <= " if np.isfinite(low) else ""
            above = f" <= {_show(high)}" if np.isfinite(high) else ""
            parts.append(f"{below}{metric}{above}")
        return ", ".join(parts) or "none"


def _bounds(metric: str, bound: Any, table: Priced) -> tuple[float, float]:
    _check_metric(metric, table)
    low, high = bound if isinstance(bound, tuple | list) and len(bound) == 2 else (None, bound)
    lower = -np.inf if low is None else _amount(metric, low, table)
    upper = np.inf if high is None else _amount(metric, high, table)
    if lower > upper:
        raise BudgetError(f"budget of {metric}: the lower bound {low!r} is above the upper bound {high!r}")
    return float(lower), float(upper)


def _check_metric(metric: str, table: Priced) -> None:
    """Whether the table knows a metric well enough to bound it."""
    if metric not in table.metrics:
        hint = (
            "; latency is measured, not counted: measure a table, and give table.with_metric('latency_ms', "
            "mutorch.latency_table(net, mutator, example_inputs)) (docs/latency.md)"
        )
        raise BudgetError(
            f"no metric {metric!r}; {nearest(metric, table.metrics)}{hint if 'latency' in str(metric) else ''}"
        )
    source = table.measured.get(metric)
    if source is not None and source.refusal is not None:
        raise BudgetError(
            f"{metric} cannot be bounded by its table: {source.refusal}; measure more architectures (num_samples), allow more "
            "(with_tolerance), or leave the bound out and measure what you consider (mutorch.remeasure)"
        )


def _amount(metric: str, amount: Any, table: Priced) -> float:
    if isinstance(amount, int | float | np.number) and not isinstance(amount, bool) and not np.isnan(amount):
        return float(amount)
    match = _AMOUNT.match(amount) if isinstance(amount, str) else None
    if match is None:
        raise BudgetError(
            f'budget of {metric}: cannot read {amount!r}; write a number, "300M", "50%", or a pair (lower, upper)'
        )
    number, suffix, percent = match.groups()
    try:
        value = float(number) * _SUFFIX[suffix.upper()]
    except ValueError:
        raise BudgetError(f"budget of {metric}: {amount!r} is no number") from None
    if suffix and percent:
        raise BudgetError(
            f"budget of {metric}: {amount!r} is both an amount and a share; write {number}{suffix} or {number}%"
        )
    return value / 100 * table.reachable(metric)[1] if percent else value


def _show(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.4g}{suffix}"
    return f"{value:.4g}"
