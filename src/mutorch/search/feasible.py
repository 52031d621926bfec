"""Architectures within a budget that were not asked for before."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutorch.cost import Budget, CostTable
from mutorch.cost.allowed import Allowed
from mutorch.errors import InfeasibleBudgetError, SpaceError
from mutorch.space import Architecture, Choice, RandomSource, SearchSpace, as_random

ENUMERABLE = 200_000
"""Spaces up to this size are listed when sampling finds nothing new."""
_BATCHES = (64, 4096, 65536)


class Feasible:
    """The part of a space that a budget allows, for strategies to draw from. Every loop in it is bounded.

    Args:
        space: the whole space.
        table: its costs; needed for a budget.
        budget: the bounds.

    Errors:
        InfeasibleBudgetError: bounds that no architecture was found to meet together; says what came closest.
    """

    def __init__(self, space: SearchSpace, table: CostTable | None = None, budget: Budget | None = None) -> None:
        self.space = space
        self.table = table
        self.budget = budget if budget is not None and budget.bounds else None
        self._counts = np.array([len(decision.choices) for decision in space])
        self._seen: set[tuple[int, ...]] = set()
        self._rest: list[tuple[int, ...]] | None = None
        self._rare = False
        self._allowed = Allowed(space)
        self._anchor = self._find_anchor()

    def accept(self, architecture: Mapping[str, Choice]) -> Architecture | None:
        """The canonical form of an architecture that is within the budget and new, which is then no longer new.

        `None` for others, and for what breaks a constraint of the space.
        """
        if not self._allowed.is_everything and self.space.broken(architecture):
            return None
        canonical = self.space.canonical(architecture)
        codes = self.space.encode(canonical)
        if codes in self._seen or not self._within(np.array([codes]))[0]:
            return None
        self._seen.add(codes)
        return canonical

    def draw(self, rng: RandomSource) -> Architecture | None:
        """A random architecture that is within the budget and new; `None` where none is left or can be found.

        Uniform over the feasible ones, unless they are so rare that random ones have to be moved towards a known one.
        """
        random = np.random.default_rng(as_random(rng).getrandbits(64))
        for candidates in (self._rejection(random), self._moved(random), self._enumerated(random)):
            for codes in candidates:
                architecture = self.accept(self.space.decode([int(code) for code in codes]))
                if architecture is not None:
                    return architecture
        return None

    def _rejection(self, random: np.random.Generator) -> Iterator[NDArray[Any]]:
        found = False
        for size in _BATCHES[: 1 if self._rare else None] if self._rest is None else ():
            codes = self._random(random, size)
            within = codes[self._within(codes)]
            found = found or len(within) > 0
            # Where a thousand feasible ones were all seen, the space is small: list it instead.
            yield from within[:1000]
        # Where none is among so many, a tight budget in a large space, later draws do not look for long.
        self._rare = not found

    def _moved(self, random: np.random.Generator) -> Iterator[NDArray[Any]]:
        """From random architectures, decision by decision towards a feasible one, until feasible."""
        if self._anchor is None or self._rest is not None:
            return
        for start in self._random(random, 64):
            order = random.permutation(len(start))
            path = np.tile(start, (len(start) + 1, 1))
            for number, decision in enumerate(order, start=1):
                path[number:, decision] = self._anchor[decision]
            yield path[int(np.argmax(self._within(path)))]

    def _enumerated(self, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        if self._rest is None:
            if not self._is_enumerable():
                return
            codes = np.array([self.space.encode(architecture) for architecture in self.space.grid()])
            self._rest = [tuple(int(code) for code in row) for row in codes[self._within(codes)]]
        self._rest = [codes for codes in self._rest if codes not in self._seen]
        if self._rest:
            yield np.array(self._rest[int(random.integers(len(self._rest)))])

    def _random(self, random: np.random.Generator, size: int) -> NDArray[np.int64]:
        return self._allowed.random(random, size)

    def _within(self, codes: NDArray[Any]) -> NDArray[np.bool_]:
        allowed = self._allowed.mask(codes)
        if self.budget is None or self.table is None:
            return allowed
        return allowed & self.budget.mask(self.table, codes)

    def _excess(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """How far each is outside of the budget; what constraints rule out is outside of everything."""
        assert self.budget is not None
        assert self.table is not None
        return np.where(self._allowed.mask(codes), self.budget.excess(self.table, codes), np.inf)

    def _is_enumerable(self) -> bool:
        try:
            return self.space.size <= ENUMERABLE
        except SpaceError:  # constraints tie too many decisions together to count
            return False

    def _find_anchor(self) -> NDArray[np.int64] | None:
        """An architecture that is feasible; `None` where all are."""
        if self.budget is None:
            return None if self._allowed.is_everything else np.array(self.space.encode(self.space.default))
        if self.table is None:
            raise InfeasibleBudgetError("a budget needs a cost table")
        ends = [find(metric) for metric in self.budget.bounds for find in (self.table.cheapest, self.table.largest)]
        known = np.array([self.space.encode(architecture) for architecture in ends])
        codes = np.concatenate([known, self._random(np.random.default_rng(0), 4096)])
        for _ in range(100):
            excess = self._excess(codes)
            codes = codes[np.argsort(excess, kind="stable")[:32]]
            if excess.min() <= 0:
                return np.array(codes[0], dtype=np.int64)
            moved = self._all_changes(codes)
            if self._excess(moved).min() >= excess.min():
                break
            codes = np.concatenate([codes, moved])
        listed = next(self._enumerated(np.random.default_rng(0)), None)
        if listed is not None:
            return listed
        costs = self.table(self.space.decode([int(code) for code in codes[0]]))
        closest = ", ".join(f"{metric} {costs[metric]:.6g}" for metric in self.budget.bounds)
        raise InfeasibleBudgetError(
            f"no architecture found within {self.budget}, though each bound can be met alone; the closest has {closest}"
        )

    def _all_changes(self, codes: NDArray[Any]) -> NDArray[Any]:
        changed = []
        for decision, count in enumerate(self._counts):
            for code in range(count):
                moved = codes.copy()
                moved[:, decision] = code
                changed.append(moved)
        return np.concatenate(changed)
