"""A budget and the constraints of a space, as bounds on integer functions of codes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mutorch.cost import Budget, CostTable
from mutorch.cost.allowed import Allowed
from mutorch.cost.factors import Codes, Factors, Key
from mutorch.cost.listing import listed
from mutorch.cost.sums import as_sum
from mutorch.space import SearchSpace


@dataclass(frozen=True, slots=True)
class Term:
    """An integer function of codes that must lie from `low` to `high`: a metric, or a constraint that is a sum."""

    factors: Factors
    low: float
    high: float

    def holds(self, values: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether values of the function are within the bounds."""
        return (values >= self.low) & (values <= self.high)


class Region:
    """The architectures within a budget that obey the constraints of their space.

    Attributes:
        terms: a function with bounds for each metric of the budget, and for each constraint that is a bound on a sum and
            that has no table.
        rules: the allowed combinations of decisions that constraints tie together, by table.
        is_whole: whether terms and rules say all.
        allowed: the constraints, as they are.
    """

    def __init__(self, space: SearchSpace, table: CostTable | None = None, budget: Budget | None = None) -> None:
        self.counts = tuple(len(decision.choices) for decision in space)
        self.allowed = Allowed(space)
        self.terms: list[Term] = []
        if budget is not None and table is not None:
            self.terms += [_of_metric(table, metric, low, high) for metric, (low, high) in budget.bounds.items()]
        sums = [as_sum(constraint, space) for tie in self.allowed.untabled for constraint in tie.constraints]
        self.terms += [Term(*found) for found in sums if found is not None]
        self.is_whole = None not in sums
        self.rules: dict[Key, NDArray[np.bool_]] = self.allowed.tables()

    @property
    def is_everything(self) -> bool:
        """Whether every architecture is in it."""
        return not self.terms and self.allowed.is_everything

    @property
    def log_size(self) -> float:
        """The logarithm of how many codes keep to the rules."""
        tied = {number for key in self.rules for number in key}
        free = math.log(math.prod(count for number, count in enumerate(self.counts) if number not in tied))
        return free + sum(math.log(np.count_nonzero(rule)) for rule in self.rules.values())

    def within(self, codes: Codes) -> NDArray[np.bool_]:
        """Which of many architectures are in it."""
        within = self.obeys(codes)
        for term in self.terms:
            within &= term.holds(term.factors.evaluate(codes))
        return within

    def obeys(self, codes: Codes) -> NDArray[np.bool_]:
        """Which of many architectures keep to what is no term."""
        if not self.is_whole:
            return self.allowed.mask(codes)
        columns = np.asarray(codes).T
        obeys = np.ones(len(codes), dtype=np.bool_)
        for key, rule in self.rules.items():
            obeys &= rule[tuple(columns[list(key)])]
        return obeys

    def random(self, random: np.random.Generator, size: int) -> NDArray[np.int64]:
        """Random architectures that obey the rules; where there are constraints that are neither, only the first do."""
        return self.allowed.random(random, size, *((0,) if self.is_whole else ()))

    def listed(self, limit: int, slopes: NDArray[np.float64] | None = None) -> Codes | None:
        """All codes in it; `None` where there are more than `limit`, or more are left on the way to them.

        Args:
            slopes: weights of the terms, as `Tilted` finds them: what all bounds together rule out is seen earlier.
        """
        bounds = [(term.factors, term.high) for term in self.terms if term.high < math.inf]
        bounds += [(term.factors.negated(), -term.low) for term in self.terms if term.low > -math.inf]
        bounds += [(Factors(self.counts, {key: (~rule).astype(np.int64)}), 0) for key, rule in self.rules.items()]
        if slopes is not None and np.count_nonzero(slopes) > 1:
            bounds.append(_together(self.terms, slopes))
        found = listed(self.counts, bounds, limit)
        return found if found is None or self.is_whole else found[self.allowed.mask(found)]


def _together(terms: Sequence[Term], slopes: NDArray[np.float64]) -> tuple[Factors, float]:
    """The sum of functions by integer weights, and its bound, which holds wherever theirs do."""
    sizes = [sum(int(np.abs(table).max()) for table in term.factors.tables.values()) for term in terms]
    weights = [round(weight) for weight in slopes / (np.abs(slopes) @ np.array(sizes, dtype=np.float64)) * 2**60]
    tables: dict[Key, NDArray[np.int64]] = {}
    bound = 0
    for term, weight in zip(terms, weights, strict=True):
        if weight:
            bound += weight * int(term.high if weight > 0 else term.low)
            for key, table in term.factors.tables.items():
                tables[key] = np.asarray(tables[key] + weight * table if key in tables else weight * table)
    return Factors(terms[0].factors.counts, tables), bound


def _of_metric(table: CostTable, metric: str, low: float, high: float) -> Term:
    """Bounds on a metric as bounds on the integers behind it, exactly: it grows with them, and is rounded."""
    factors = table.factors(metric)
    smallest = sum(int(part.min()) for part in factors.tables.values())
    largest = sum(int(part.max()) for part in factors.tables.values())
    lower, upper = -math.inf, math.inf
    if np.isfinite(low):
        lower = _first(smallest, largest + 1, lambda raw: table.scaled(metric, raw) >= low)
    if np.isfinite(high):
        upper = _first(smallest, largest + 1, lambda raw: table.scaled(metric, raw) > high) - 1
    return Term(factors, lower, upper)


def _first(low: int, high: int, holds: Callable[[NDArray[np.int64]], NDArray[np.bool_]]) -> int:
    """The smallest number from `low` on for which something holds that holds for all larger ones; `high` if for none."""
    while low < high:
        middle = (low + high) // 2
        if np.all(holds(np.array([middle]))):
            high = middle
        else:
            low = middle + 1
    return low
