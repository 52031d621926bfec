"""What the architectures of a space cost, and how many of them a budget allows, before a search."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mutorch.cost import Budget, CostTable
from mutorch.cost.budget import BudgetSpec
from mutorch.cost.factors import Codes
from mutorch.errors import ConfigError

from .region import Region
from .tilted import Tilted

_FEW, _COUNTED = 10_000, 100_000
"""Up to about how many feasible architectures are counted one by one, and how many may be left on the way."""
_COMMON = 0.05
"""The share from which on it is that of random ones."""
QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True)
class Profile:
    """The costs of a space in figures; `print` shows a table.

    Attributes:
        metrics: for each metric the smallest value, the quartiles of random architectures, and the largest value.
        budget: what was asked about; without bounds, everything is feasible.
        share: about which share of the random architectures is within the budget, however small; 0 where none is, or where
            none was found.
        error: the standard error of that, relative to it; 0 where it was counted, and infinite where none was found, though
            that does not prove that there is none.
    """

    metrics: dict[str, tuple[float, float, float, float, float]]
    budget: Budget
    share: float
    error: float

    def __str__(self) -> str:
        lines = [f"{'':<12}" + "".join(f"{name:>13}" for name in ("smallest", "25%", "median", "75%", "largest"))]
        lines += [
            f"{metric:<12}" + "".join(f"{_number(value):>13}" for value in values)
            for metric, values in self.metrics.items()
        ]
        return "\n".join([*lines, *([self._feasible()] if self.budget.bounds else [])])

    def _feasible(self) -> str:
        found = f"{self.share:.3g} of all" if self.share < 1e-4 else f"{100 * self.share:.3g}%"
        if not self.share:
            found = "none found" if self.error else "none"
        elif self.error:
            found = f"{found}, give or take {self.error:.0%} of that"
        return f"feasible within {self.budget}: {found}"


def profile(
    table: CostTable, budget: BudgetSpec | Budget | None = None, *, samples: int = 4096, seed: int = 0
) -> Profile:
    """What the architectures of a space cost, and which share of them a budget allows.

    The share is that of `SearchSpace.sample`, in which all architectures are equally likely unless a decision hides others.
    A few are counted; of many, as few as one in 10^12, it is estimated from the draws of `Tilted`, as in importance sampling.

    Args:
        budget: as in `search`.
        samples: how many random architectures the quartiles and the share are estimated from.
        seed: which ones.

    Errors:
        BudgetError, InfeasibleBudgetError: as in `Budget.parse`: a metric whose bounds no architecture meets.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from mutorch.mutables import OneShotMutableOP
        >>> from mutorch.mutators import Mutator
        >>> def choice():
        ...     return OneShotMutableOP({"conv": nn.Conv2d(4, 4, 3, padding=1), "skip": nn.Identity()})
        >>> net = nn.Sequential(*[choice() for _ in range(10)])
        >>> table = CostTable.from_model(Mutator(net), torch.zeros(1, 4, 8, 8))
        >>> found = profile(table, {"macs": "10%"})
        >>> round(found.share * 2**10)  # no convolution, or one of ten
        11
        >>> print(found)
                         smallest          25%       median          75%      largest
        macs                    0        36.9k        46.1k        55.3k        92.2k
        params                  0          592          740          888        1.48k
        act_mem_mb              0       0.0041      0.00512      0.00614       0.0102
        size_mb                 0      0.00237      0.00296      0.00355      0.00592
        feasible within macs <= 9.216k: 1.07%
    """
    if samples < 1:
        raise ConfigError(f"a profile needs at least one sample, got {samples}")
    bounds = Budget.parse(budget, table)
    space = table.space
    region = Region(space)
    codes = _some(region, samples, seed)
    if not len(codes):
        codes = np.array([space.encode(space.default)])
    metrics = {}
    for metric in table.metrics:
        if metric == "flops":  # twice the macs
            continue
        smallest, largest = table.reachable(metric)
        quarter, half, most = np.quantile(table.evaluate(codes, metric).astype(np.float64), QUARTILES).tolist()
        metrics[metric] = (float(smallest), quarter, half, most, float(largest))
    if not bounds.bounds:
        return Profile(metrics, bounds, 1.0, 0.0)
    log_all, error_of_all = _log_count(region, samples, seed)
    log_feasible, error = _log_count(Region(space, table, bounds), samples, seed)
    share = math.exp(log_feasible - log_all) if math.isfinite(log_feasible) else 0.0
    return Profile(metrics, bounds, share, math.hypot(error, error_of_all))


def _some(region: Region, samples: int, seed: int) -> Codes:
    """Random architectures of a region; fewer than asked for where they are rare."""
    codes = region.random(np.random.default_rng(seed), samples)
    found = codes[region.within(codes)]
    if len(found) < _COMMON * samples and region.terms:
        tilted = Tilted(region)
        tried = min(math.ceil(samples / tilted.rate), 16 * samples) if tilted.rate else 0
        found = tilted.propose(np.random.default_rng(seed), tried)[:samples] if tried else found
    return found


def _log_count(region: Region, samples: int, seed: int) -> tuple[float, float]:
    """The logarithm of how many codes are in a region, and its standard error."""
    if not region.terms and region.is_whole:
        return region.log_size, 0.0
    if region.log_size < math.log(_FEW) and (counted := _counted(region)) is not None:
        return counted
    codes = region.allowed.random(np.random.default_rng(seed), samples, 0)
    common = float(region.within(codes).mean())
    if common >= _COMMON:
        return region.log_size + math.log(common), math.sqrt((1 - common) / (common * samples))
    tilted = Tilted(region)
    if tilted.is_impossible:
        return -math.inf, 0.0
    if tilted.log_count < math.log(_FEW) and (counted := _counted(region, tilted.slopes)) is not None:
        return counted
    rate = len(tilted.propose(np.random.default_rng(seed), samples)) / samples
    if rate == 0:
        return tilted.log_count, math.inf
    return tilted.log_bound + math.log(rate), math.sqrt((1 - rate) / (rate * samples))


def _counted(region: Region, slopes: NDArray[np.float64] | None = None) -> tuple[float, float] | None:
    listed = region.listed(_COUNTED, slopes)
    if listed is None:
        return None
    return (math.log(len(listed)) if len(listed) else -math.inf), 0.0


def _number(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"
