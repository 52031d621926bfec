"""Random codes with exactly the probabilities that a sum of small tables gives: exact sampling where costs are tilted."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .elimination import ENTRIES, flat, plan, send
from .factors import Key

LogTable = NDArray[np.float64]

_STEP = 4096
"""Entries up to which decisions are drawn together, in one look-up."""


class Gibbs:
    """How to draw `codes` with probabilities in proportion to `exp(sum over tables of table[codes[decisions]])`.

    Decisions are eliminated one after the other, each by a sum over its choices, and drawn in the opposite order, each given
    those that it acts with: forward filtering, backward sampling (Carter & Kohn 1994). What no elimination has room for,
    since too many decisions act on each other, is split into parts, which gives a distribution that is nearly the wanted one
    and a bound on the quotient of the two (weighted mini-buckets, Liu, Fisher & Ihler, NIPS 2015).

    Args:
        counts: how many choices each decision has.
        keys: the decisions of each table, ascending.
        entries: the largest table to make.

    Example:
        >>> gibbs = Gibbs((2, 2), [(0,), (0, 1)])
        >>> tilted = gibbs.at({(0,): np.log([1.0, 3.0]), (0, 1): np.zeros((2, 2))})
        >>> round(float(np.exp(tilted.log_total)), 6)  # 1 + 1 + 3 + 3
        8.0
        >>> codes, _ = tilted.sample(np.random.default_rng(0), 1000)
        >>> round(float(codes[:, 0].mean()), 1)
        0.8
    """

    def __init__(self, counts: Sequence[int], keys: Iterable[Key], entries: int = ENTRIES) -> None:
        self.counts = tuple(counts)
        self._buckets = plan(self.counts, keys, entries)

    @property
    def is_exact(self) -> bool:
        """Whether no decision had to be split."""
        return all(len(bucket.parts) == 1 for bucket in self._buckets)

    def at(self, tables: Mapping[Key, LogTable]) -> "Tilt":
        """The distribution of these tables, whose keys are among those given; `-inf` rules out."""
        left: dict[Key, LogTable] = dict(tables)
        drawn: list[_Drawn] = []
        for bucket in self._buckets:
            options = []
            totals = [part.taken(left, self.counts) for part in bucket.parts]
            for part, total in zip(bucket.parts, totals if len(totals) == 1 else _alike(totals), strict=True):
                message, conditional = _summed(total * float(len(totals)))
                send(left, part.rest, message / len(totals))
                options.append((part.rest, conditional))
            drawn.append(_Drawn((bucket.decision,), options))
        return Tilt(self.counts, float(left.get((), np.float64(0))), list(reversed(drawn)))


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Decisions that are drawn together: for each option the decisions before them, and probabilities (*before, *drawn)."""

    decisions: Key
    options: list[tuple[Key, NDArray[np.float64]]]


class Tilt:
    """What `Gibbs.at` gives.

    Attributes:
        log_total: the logarithm of the sum over all codes; where decisions had to be split, of more than that.
    """

    def __init__(self, counts: Sequence[int], log_total: float, drawn: Sequence[_Drawn]) -> None:
        self.log_total = log_total
        self._counts = tuple(counts)
        self._drawn = drawn
        self._steps: list[_Step] = []

    def sample(self, random: np.random.Generator, size: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Random codes, an array (size, decisions), and how much too likely each was.

        The second array is the logarithm of the probability with which to keep each for what is kept to be exactly as
        wanted: zeros unless decisions had to be split.
        """
        if not self._steps:
            self._steps = [_Step(self._counts, drawn) for drawn in _together(self._drawn, self._counts)]
        codes = np.zeros((len(self._counts), size), dtype=np.intp)  # a decision's choices lie side by side
        keep = np.zeros(size)
        for step in self._steps:
            step.draw(random, codes, keep)
        return np.ascontiguousarray(codes.T), keep


class _Step:
    """One look-up that draws some decisions for many architectures, given those drawn before."""

    def __init__(self, counts: Sequence[int], drawn: _Drawn) -> None:
        self._counts = counts
        self._decisions = list(drawn.decisions)
        shape = [counts[number] for number in drawn.decisions]
        self._states = np.indices(shape).reshape(len(shape), -1)
        self._options = []
        for before, probabilities in drawn.options:
            rows = probabilities.reshape(-1, self._states.shape[1])
            ends = np.cumsum(rows, axis=1)
            ends /= ends[:, -1:]
            # Row after row in one ascending array: a single search finds a place in the right row.
            ends += np.arange(len(rows))[:, None]
            self._options.append((before, ends.reshape(-1), rows))

    def draw(self, random: np.random.Generator, codes: NDArray[np.intp], keep: NDArray[np.float64]) -> None:
        states = self._states.shape[1]
        rows = [flat(codes, before, self._counts) for before, _, _ in self._options]
        chosen = np.empty(len(keep), dtype=np.intp)
        uniform = random.random(len(keep))
        if len(self._options) == 1:
            chosen = _found(self._options[0][1], rows[0], uniform, states)
        else:
            which = random.integers(len(self._options), size=len(keep))
            for number, (_, ends, _) in enumerate(self._options):
                mine = which == number
                chosen[mine] = _found(ends, rows[number][mine], uniform[mine], states)
            # Drawn by the mean of the options; wanted is their geometric mean, which is smaller.
            each = np.array([table[row, chosen] for (_, _, table), row in zip(self._options, rows, strict=True)])
            with np.errstate(divide="ignore"):
                keep += np.log(each).mean(axis=0) - np.log(each.mean(axis=0))
        codes[self._decisions] = self._states[:, chosen]


def _found(
    ends: NDArray[np.float64], rows: NDArray[np.intp], uniform: NDArray[np.float64], states: int
) -> NDArray[np.intp]:
    found: NDArray[np.intp] = np.searchsorted(ends, rows + uniform, side="right") - rows * states
    np.minimum(found, states - 1, out=found)  # `rows + uniform` may round up to the next row
    return found


def _alike(totals: Sequence[LogTable]) -> list[LogTable]:
    """The same sum, of parts that say as nearly as can be the same of the last decision: they are drawn from in turns."""
    means = []
    for total in totals:
        rows = total.reshape(-1, total.shape[-1])
        finite = np.isfinite(rows)
        means.append(np.where(finite, rows, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1))
    shared = sum(means[1:], start=means[0]) / len(means)
    return [total + (shared - mean) for total, mean in zip(totals, means, strict=True)]


def _summed(total: LogTable) -> tuple[LogTable, NDArray[np.float64]]:
    """`log(sum(exp(total)))` along the last axis, and the probabilities along it."""
    peak = total.max(axis=-1, keepdims=True)
    peak[np.isneginf(peak)] = 0.0
    likely = np.exp(total - peak)
    mass = likely.sum(axis=-1, keepdims=True)
    # What is ruled out altogether is never asked for, unless decisions had to be split; then it is not kept.
    never = mass[..., 0] == 0
    likely[never] = 1.0 / likely.shape[-1]
    with np.errstate(divide="ignore"):
        message = (np.log(mass) + peak)[..., 0]
    mass[never] = 1.0
    return message, likely / mass


def _together(drawn: Sequence[_Drawn], counts: Sequence[int]) -> list[_Drawn]:
    """The same draws in fewer steps: what follows each other is drawn together while the table stays small."""
    found: list[_Drawn] = []
    for one in drawn:
        last = found[-1] if found else None
        if last is not None and len(one.options) == len(last.options) == 1:
            (before, table), (own, conditional) = last.options[0], one.options[0]
            outer = tuple(sorted({*before, *own} - {*last.decisions}))
            order = (*outer, *last.decisions, *one.decisions)
            if math.prod(counts[number] for number in order) <= _STEP:
                both = _placed(table, (*before, *last.decisions), order)
                both = both * _placed(conditional, (*own, *one.decisions), order)
                shape = [counts[number] for number in order]
                found[-1] = _Drawn(
                    (*last.decisions, *one.decisions), [(outer, np.ascontiguousarray(np.broadcast_to(both, shape)))]
                )
                continue
        found.append(one)
    return found


def _placed(table: NDArray[Any], key: Key, order: Key) -> NDArray[Any]:
    """A table over `key` with its axes placed as `order` has them, which has all of `key`."""
    axes = sorted(range(len(key)), key=lambda axis: order.index(key[axis]))
    sizes = {key[axis]: table.shape[axis] for axis in axes}
    return table.transpose(axes).reshape([sizes.get(number, 1) for number in order])
