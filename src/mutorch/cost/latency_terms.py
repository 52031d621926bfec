"""The terms of which a predicted latency is a sum: small tables over the decisions of a space."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mutorch.errors import CostError
from mutorch.space import Decision, SearchSpace

from .amount import MAX_ENTRIES
from .factors import Codes

Floats = NDArray[np.float64]
Key = tuple[int, ...]

_ENTRIES = 200_000
"""Numbers up to which two decisions that follow each other have terms together."""

_SLOPE = 10.0
"""How freely a latency may grow with a number, relative to what each number may add by itself."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms over the same decisions.

    Attributes:
        decisions: their numbers, ascending.
        basis: an axis for each of them, and a last one for the terms.
        scale: how freely they may be fitted, relative to others.
    """

    decisions: Key
    basis: Floats
    scale: float

    def columns(self, codes: Codes) -> Floats:
        """The terms at many architectures: an array (architectures, terms)."""
        found: Floats = self.basis[tuple(np.asarray(codes)[:, list(self.decisions)].T)]
        return found

    def table(self, coefficients: Floats) -> Floats:
        """The sum of the terms, times their coefficients, as one table."""
        summed: Floats = self.basis @ coefficients
        return summed


class TermsOf:
    """The terms of the decisions of one space.

    A decision that is hidden, since it sits in a candidate that was not chosen, has no part in a latency: its terms are
    over the decisions around it as well, and 0 where they hide it.

    Example:
        >>> space = SearchSpace([Decision("op", ("conv", "skip")), Decision("size", (3, 5), when=(("op", "conv"),))])
        >>> single, inside = TermsOf(space).single()
        >>> inside.decisions, inside.columns(np.array([[0, 0], [0, 1], [1, 1]])).tolist()
        ((0, 1), [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    """

    def __init__(self, space: SearchSpace) -> None:
        self._decisions = space.decisions
        self._counts = tuple(len(decision.choices) for decision in space)
        place = {name: number for number, name in enumerate(space.names)}
        self._conditions = [
            [(place[parent], space[parent].index(choice)) for parent, choice in decision.when] for decision in space
        ]

    def single(self) -> list[Terms]:
        """Each choice of each decision by itself."""
        return [
            Terms(key, self._basis(key, [self._steps(number)]), 1.0)
            for number, decision in enumerate(self._decisions)
            if len(decision.choices) > 1 or decision.when
            for key in [self._around([number])]
        ]

    def paired(self) -> list[Terms]:
        """Each two decisions that follow each other, together. Where their table would be large, they have no terms."""
        found = []
        for first in range(len(self._decisions) - 1):
            both = (first, first + 1)
            key = self._around(both)
            features = [self._slope(number) for number in both]
            terms = int(np.prod([feature[1].shape[1] for feature in features]))
            if terms and terms * np.prod([float(self._counts[number]) for number in key]) <= _ENTRIES:
                found.append(Terms(key, self._basis(key, features), 0.3))
        return found

    def active(self, codes: Codes) -> NDArray[np.bool_]:
        """Which decisions matter, in many architectures: an array (architectures, decisions)."""
        return np.stack([self._active(number, np.asarray(codes).T) for number in range(len(self._counts))], axis=1)

    def _steps(self, number: int) -> tuple[int, Floats]:
        """A term for each choice but, of numbers, a slope and a step at each: what was not measured lies between."""
        decision = self._decisions[number]
        if not _is_ordered(decision):
            return number, np.eye(len(decision.choices))
        rank = np.argsort(np.argsort(decision.choices))
        inside = [np.ones(len(rank))] if decision.when else []
        slope = [_SLOPE * self._slope(number)[1][:, 0]] if len(rank) > 2 else []
        steps = np.stack([*inside, *slope, *(rank >= step for step in range(1, len(rank)))], axis=1)
        return number, steps.astype(np.float64)

    def _slope(self, number: int) -> tuple[int, Floats]:
        """Fewer terms, for products: of numbers, only how large they are."""
        decision = self._decisions[number]
        if len(decision.choices) > 1 and _is_ordered(decision):
            values = np.array(decision.choices, dtype=np.float64)
            return number, ((values - values.mean()) / values.std())[:, None]
        return number, np.eye(len(decision.choices))[:, 1:]

    def _basis(self, key: Key, features: Sequence[tuple[int, Floats]]) -> Floats:
        """The products of the features of decisions, over `key`; 0 where one of them is hidden."""
        entries = float(np.prod([float(self._counts[number]) for number in key]))
        if entries > MAX_ENTRIES:
            names = ", ".join(repr(self._decisions[number].name) for number in key)
            raise CostError(
                f"too many decisions hide each other for a table of latencies ({entries:.0f} entries): {names}"
            )
        codes = np.indices([self._counts[number] for number in key]).reshape(len(key), -1)
        by_number = dict(zip(key, codes, strict=True))
        product = np.ones((codes.shape[1], 1))
        for number, feature in features:
            own = feature[by_number[number]] * self._active(number, by_number)[:, None]
            product = (product[:, :, None] * own[:, None, :]).reshape(len(own), -1)
        return product.reshape(*(self._counts[number] for number in key), -1)

    def _active(self, number: int, codes: Mapping[int, NDArray[np.integer]] | Codes) -> NDArray[np.bool_]:
        conditions = self._conditions[number]
        active = np.full(len(codes[number]), not conditions)
        for parent, code in conditions:
            active |= (codes[parent] == code) & self._active(parent, codes)
        return active

    def _around(self, numbers: Sequence[int]) -> Key:
        """These decisions and all that may hide them."""
        found: set[int] = set()
        waiting = list(numbers)
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                waiting += [parent for parent, _ in self._conditions[number]]
        return tuple(sorted(found))


def _is_ordered(decision: Decision) -> bool:
    return all(
        isinstance(choice, int | float) and not isinstance(choice, bool) and abs(choice) < math.inf
        for choice in decision.choices
    )
