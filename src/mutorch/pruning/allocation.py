"""How many channels each unit keeps under a budget."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from torch import Tensor

from mutorch.cost import Budget
from mutorch.errors import ConfigError, nearest
from mutorch.space import Architecture

from .prices import Prices

Allocation = Callable[[Prices, Budget, Mapping[str, Tensor]], Architecture]
"""Takes what widths cost, the budget and the scores of each unit's channels; gives the widths."""


def uniform(prices: Prices, budget: Budget, scores: Mapping[str, Tensor]) -> Architecture:
    """One share for all units, and what is left of the budget to the units that have the smallest share.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from mutorch import Mutator
        >>> from mutorch.channels import searchable, widths
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4))
        >>> net = searchable(model, torch.zeros(1, 4), rules=[widths(counts=range(1, 9), divisor=1)])
        >>> prices = Prices(Mutator(net), torch.zeros(1, 4))
        >>> uniform(prices, prices.budget({"macs": "50%"}), {})
        {'0': 6, '1': 4}
    """
    names = list(prices.widths)
    whole = prices.whole

    def at(share: float) -> list[int]:
        # The largest width that is no more than the share; the smallest where there is none.
        return [
            max(0, sum(choice <= share * whole[name] * (1 + 1e-9) for choice in prices.widths[name]) - 1)
            for name in names
        ]

    shares = sorted({choice / whole[name] for name in names for choice in prices.widths[name]})
    found = _largest(len(shares), lambda i: prices.fits(budget, prices.at(at(shares[i]))))
    start = at(shares[found]) if found >= 0 else [0] * len(names)

    def by_share(positions: list[int]) -> Iterable[int]:
        return sorted(range(len(names)), key=lambda i: prices.widths[names[i]][positions[i]] / whole[names[i]])

    return _filled(prices, budget, start, by_share)


def by_score(prices: Prices, budget: Budget, scores: Mapping[str, Tensor]) -> Architecture:
    """The channels with the smallest scores of the whole model go first, whichever unit they are in.

    Scores are divided by their mean over the unit first: units are then comparable, whatever their size and place.
    """
    return _lowest_first(prices, budget, {name: scores[name] / scores[name].mean().clamp_min(1e-12) for name in scores})


def by_absolute_score(prices: Prices, budget: Budget, scores: Mapping[str, Tensor]) -> Architecture:
    """As `by_score`, with scores as they are: for rankings whose scores compare over units, as those of `GroupFisher`."""
    return _lowest_first(prices, budget, scores)


def by_ratio(ratios: Mapping[str, float], rest: Allocation = uniform) -> Allocation:
    """Shares of channels that units keep, by globs over their names; the others meet the budget by `rest`.

    A unit keeps the largest of its widths that is no more than its share. The last glob that names a unit counts.

    Errors:
        ConfigError: a share out of range; when the widths are chosen, a glob that names no unit.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from mutorch import Mutator
        >>> from mutorch.channels import searchable, widths
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4))
        >>> net = searchable(model, torch.zeros(1, 4), rules=[widths(counts=range(1, 9), divisor=1)])
        >>> prices = Prices(Mutator(net), torch.zeros(1, 4))
        >>> by_ratio({"0": 0.5})(prices, prices.budget({}), {})
        {'0': 4, '1': 8}
    """
    for pattern, ratio in ratios.items():
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
            raise ConfigError(f"the share of {pattern!r} must be above 0 and at most 1, got {ratio!r}")

    def allocate(prices: Prices, budget: Budget, scores: Mapping[str, Tensor]) -> Architecture:
        for pattern in ratios:
            if not any(fnmatchcase(name, pattern) for name in prices.whole):
                raise ConfigError(
                    f"a share is given for {pattern!r}, which is no unit; {nearest(pattern, prices.whole)}"
                )
        fixed = {}
        for name, choices in prices.widths.items():
            given = [ratio for pattern, ratio in ratios.items() if fnmatchcase(name, pattern)]
            if given:
                most = prices.whole[name] * (1 - prices.share * (1 - given[-1]))
                fixed[name] = max((c for c in choices if c <= most * (1 + 1e-9)), default=choices[0])
        return rest(prices.fixed(fixed), budget, scores)

    return allocate


def _lowest_first(prices: Prices, budget: Budget, scores: Mapping[str, Tensor]) -> Architecture:
    names = list(prices.widths)
    ordered = {name: scores[name].sort(descending=True).values for name in names}

    def gain(i: int, position: int) -> float:
        """The mean score of the channels that a unit has at a position and not at the one below."""
        choices = prices.widths[names[i]]
        return float(ordered[names[i]][choices[position - 1] : choices[position]].mean())

    # A step is as good as the best one that it makes way for: the order of a unit's steps is given.
    steps: list[tuple[float, int]] = []
    for i, name in enumerate(names):
        lowest = float("-inf")
        for position in range(len(prices.widths[name]) - 1, 0, -1):
            lowest = max(lowest, gain(i, position))
            steps.append((lowest, i))
    steps.sort(key=lambda step: step[0])

    def after(count: int) -> list[int]:
        positions = [len(prices.widths[name]) - 1 for name in names]
        for _, i in steps[:count]:
            positions[i] -= 1
        return positions

    kept = _largest(len(steps) + 1, lambda i: prices.fits(budget, prices.at(after(len(steps) - i))))

    def by_gain(positions: list[int]) -> Iterable[int]:
        open_ = [i for i, name in enumerate(names) if positions[i] + 1 < len(prices.widths[name])]
        return sorted(open_, key=lambda i: -gain(i, positions[i] + 1))

    return _filled(prices, budget, after(len(steps) - max(kept, 0)), by_gain)


ALLOCATIONS: dict[str, Allocation] = {"uniform": uniform, "global": by_score, "absolute": by_absolute_score}
"""Name to allocation, for configs."""


def _largest(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number below `count` that fits, where all below one that fits do; -1 if none does."""
    return bisect_left(range(count), True, key=lambda i: not fits(i)) - 1


def _filled(
    prices: Prices, budget: Budget, positions: list[int], order: Callable[[list[int]], Iterable[int]]
) -> Architecture:
    """Widen unit after unit by a step, in this order, until no step fits any more."""
    names = list(prices.widths)
    widened = True
    while widened:
        widened = False
        for i in order(positions):
            wider = [position + (j == i) for j, position in enumerate(positions)]
            if wider[i] < len(prices.widths[names[i]]) and prices.fits(budget, prices.at(wider)):
                positions, widened = wider, True
                break
    architecture = prices.at(positions)
    prices.check(budget, architecture)
    return architecture
