"""Architectures within a budget, uniformly, however rare they are."""

import math

import numpy as np
from numpy.typing import NDArray

from mutorch.cost.factors import Key
from mutorch.cost.gibbs import Gibbs, Tilt

from .region import Region, Term

_SAMPLES = 1024
"""Architectures that say how costs vary, for one step of the tuning."""
_STEPS = 40
_HALVINGS = 24
_ENOUGH = 0.02
"""Tuning ends where a step makes less than two more of a hundred architectures useful."""
_PROOF = -1.0
"""Where a bound on the logarithm of a number proves that it is 0, whatever rounding did."""
_STEEPEST = 50.0
"""A slope at which a cost that is larger by 1 is e^50 times less likely: no architecture but the cheapest is drawn."""
_MEASURED = (4096, 65536)


class Tilted:
    """Draws from the part of a space that a budget allows, exactly uniformly over what `SearchSpace.sample` is uniform over.

    Architectures are drawn with probabilities in proportion to `exp(-slope * cost)`, summed over the metrics, with slopes at
    which the mean cost is at the bound (exponential tilting); those within the budget are kept with probability
    `exp(slope * (cost - bound))`, which makes up for the tilt exactly. The slopes minimise a convex function, Chernoff's
    bound on how many architectures are feasible, and with it the share that is thrown away. So a budget that one in 10^9
    meets costs about as much as one that one in ten meets.

    Nothing here is approximate: where decisions act on each other in too many ways, or constraints tie too many together for
    a table, more is thrown away, until `rate` is 0 and nothing can be drawn.

    Args:
        region: what is feasible.

    Attributes:
        slopes: one for each term of the region.
        rate: the share of proposals that are kept, measured on some thousands.
        log_bound: the logarithm of an upper bound on how many architectures are feasible. Below -1 there are none.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        with np.errstate(divide="ignore"):
            self._rules = {key: np.log(rule.astype(np.float64)) for key, rule in region.rules.items()}
        keys = {key for term in region.terms for key in term.factors.tables} | self._rules.keys()
        self._gibbs = Gibbs(region.counts, keys)
        self.slopes, self.log_bound, self._tilt = self._tuned()
        self.rate = 0.0
        for size in _MEASURED if not self.is_impossible else ():
            self.rate = len(self.propose(np.random.default_rng(0), size)) / size
            if self.rate > 0:
                break

    @property
    def is_impossible(self) -> bool:
        """Whether the bound proves that nothing is feasible."""
        return self.log_bound < _PROOF

    @property
    def log_count(self) -> float:
        """The logarithm of about how many combinations of choices are feasible; `-inf` where none was found."""
        return self.log_bound + math.log(self.rate) if self.rate > 0 else -math.inf

    def propose(self, random: np.random.Generator, size: int) -> NDArray[np.intp]:
        """The feasible ones among `size` proposals, each uniform over all that are feasible, as codes."""
        codes, keep = self._tilt.sample(random, size)
        within = self._region.obeys(codes)
        for term, slope in zip(self._region.terms, self.slopes, strict=True):
            values = term.factors.evaluate(codes)
            within &= term.holds(values)
            if slope:
                keep += slope * (values - _edge(term, slope))
        kept: NDArray[np.intp] = codes[within & (np.log1p(-random.random(size)) <= keep)]
        return kept

    def near(self, random: np.random.Generator, size: int) -> NDArray[np.intp]:
        """Proposals as they come: around the bounds, feasible or not."""
        return self._tilt.sample(random, size)[0]

    # ---- slopes ------------------------------------------------------------------------------------------------------

    def _tuned(self) -> tuple[NDArray[np.float64], float, Tilt]:
        """Slopes by Newton's method on the bound, each step as long as the bound gets smaller."""
        slopes = np.zeros(len(self._region.terms))
        bound, tilt = self._bound(slopes)
        limits = np.array([(-_STEEPEST * (t.low > -np.inf), _STEEPEST * (t.high < np.inf)) for t in self._region.terms])
        for number in range(_STEPS):
            step = self._newton(slopes, tilt, number)
            before = bound
            for halving in range(_HALVINGS if step.any() else 0):
                moved = np.clip(slopes + step / 2**halving, limits[:, 0], limits[:, 1])
                found, other = self._bound(moved)
                if found < bound:
                    slopes, bound, tilt = moved, found, other
                    break
            if before - bound < _ENOUGH or bound < _PROOF:
                break
        return slopes, bound, tilt

    def _bound(self, slopes: NDArray[np.float64]) -> tuple[float, Tilt]:
        """The logarithm of Chernoff's bound on how many architectures are feasible, and what is drawn with these slopes."""
        tables: dict[Key, NDArray[np.float64]] = dict(self._rules)
        bound = 0.0
        for term, slope in zip(self._region.terms, slopes, strict=True):
            if not slope:
                continue
            # Each table counts from its likeliest entry on, so that sums are small numbers.
            start = 0
            for key, table in term.factors.tables.items():
                first = int(table.min() if slope > 0 else table.max())
                start += first
                tilted = -slope * (table - first).astype(np.float64)
                tables[key] = tables[key] + tilted if key in tables else tilted
            bound += slope * (_edge(term, slope) - start)
        tilt = self._gibbs.at(tables)
        return bound + tilt.log_total, tilt

    def _newton(self, slopes: NDArray[np.float64], tilt: Tilt, number: int) -> NDArray[np.float64]:
        codes, keep = tilt.sample(np.random.default_rng(number), _SAMPLES)
        weights = np.exp(keep - keep.max())
        weights /= weights.sum()
        values = np.array([term.factors.evaluate(codes) for term in self._region.terms], dtype=np.float64)
        means = values @ weights
        centred = values - means[:, None]
        covariance = (centred * weights) @ centred.T
        slack = np.array([_slack(*one) for one in zip(self._region.terms, slopes, means, strict=True)])
        active = np.flatnonzero(slack)
        step = np.zeros(len(slopes))
        if len(active):
            scale = np.sqrt(covariance.diagonal()[active])
            # Where samples are all alike, an architecture of cost 1 more would be the next.
            scale = np.maximum(scale, 1e-3)
            inner = covariance[np.ix_(active, active)] / np.outer(scale, scale) + 1e-3 * np.eye(len(active))
            step[active] = np.linalg.solve(inner, slack[active] / scale) / scale
        return step


def _edge(term: Term, slope: float) -> float:
    """Among feasible values, the one that a slope makes least likely."""
    return term.high if slope > 0 else term.low


def _slack(term: Term, slope: float, mean: float) -> float:
    """How far the mean lies outside of the bound that matters: what the slope has to change for."""
    if slope:
        return mean - _edge(term, slope)
    return max(mean - term.high, 0.0) + min(mean - term.low, 0.0)
