"""Architectures within a budget that were not asked for before."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mutorch.cost import Budget, Costs, CostTable
from mutorch.errors import InfeasibleBudgetError, SpaceError
from mutorch.space import Architecture, Choice, RandomSource, SearchSpace, as_random

from .closest import closest
from .region import Region
from .tilted import Tilted

ENUMERABLE = 200_000
"""Feasible architectures up to which they are listed where drawing finds nothing new."""
_SEEN = 4096
"""Random architectures that say whether feasible ones are common."""
_COMMON = 0.05
"""The share of feasible architectures from which on random ones are simply tried."""
_RARE = 0.01
"""The share of proposals below which a short list is better."""
_UNKNOWN = 1 / 16
"""Assumed where constraints that are no sums leave nothing else to go by than trying: the first of a batch obey them."""
_BATCHES = (2, 4, 16, 128)
"""How many feasible architectures a batch should hold; the next one is drawn where all of them were seen."""
_SMALLEST, _LARGEST = 64, 65536


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
        if self.budget is not None and table is None:
            raise InfeasibleBudgetError("a budget needs a cost table")
        self._region = Region(space, table, self.budget)
        self._hides = any(decision.when for decision in space)
        self._seen: set[tuple[int, ...]] = set()
        self._list: list[tuple[int, ...]] | None = None
        self._is_listable = True
        self._tilted: Tilted | None = None
        self._share = 1.0
        self._log_count = self._region.log_size
        self._anchor = None if self._region.is_everything else self._find_anchor()
        if self._hides and not space.constraints:  # one subnet in many spellings
            self._log_count = min(self._log_count, math.log(space.size))

    def accept(self, architecture: Mapping[str, Choice]) -> Architecture | None:
        """The canonical form of an architecture that is within the budget and new, which is then no longer new.

        `None` for others, and for what breaks a constraint of the space.
        """
        if self.space.constraints and self.space.broken(architecture):
            return None
        canonical = self.space.canonical(architecture)
        codes = self.space.encode(canonical)
        if codes in self._seen or not self._region.within(np.array([codes]))[0]:
            return None
        self._seen.add(codes)
        return canonical

    def draw(self, rng: RandomSource) -> Architecture | None:
        """A random architecture that is within the budget and new; `None` where none is left or can be found.

        Each is as likely as in `SearchSpace.sample`, which is to say all are equally likely where no decision hides another:
        where feasible ones are common, random ones are tried; where they are rare, see `Tilted`. Where that finds none, since
        too many decisions act on each other or constraints are no sums, few are listed, and of many, random ones are moved
        towards a known one; only those are not uniform. What comes depends on `rng` and on what was accepted before.
        """
        random = np.random.default_rng(as_random(rng).getrandbits(64))
        ways = (self._listed,) if self._are_few() else (self._proposed, self._listed, self._moved)
        for way in ways:
            for codes in way(random):
                architecture = self._new(codes)
                if architecture is not None:
                    return architecture
        return None

    # ---- ways to draw ------------------------------------------------------------------------------------------------

    def _proposed(self, random: np.random.Generator) -> Iterator[Sequence[int]]:
        """Feasible ones, each uniform: of a batch that should hold some, then of larger ones."""
        if self._share == 0:
            return
        for wanted in _BATCHES:
            size = max(math.ceil(wanted / self._share), _SMALLEST * wanted // _BATCHES[0])
            found = self._feasible(random, min(size, _LARGEST))
            # Where a thousand feasible ones were all seen, they are few: list them instead.
            yield from map(np.ndarray.tolist, found[:1000])
            if len(found) >= 1000:
                return

    def _feasible(self, random: np.random.Generator, size: int) -> NDArray[Any]:
        if self._tilted is not None and self._tilted.rate:
            return self._tilted.propose(random, size)
        codes = self._region.random(random, size)
        return codes[self._region.within(codes)]

    def _moved(self, random: np.random.Generator) -> Iterator[Sequence[int]]:
        """From random architectures, decision by decision towards a feasible one, until feasible; where none are listed."""
        if self._anchor is None or self._list is not None:  # what is listed and new was found in the list
            return
        for start in self._region.random(random, 64):
            order = random.permutation(len(start))
            path = np.tile(start, (len(start) + 1, 1))
            for number, decision in enumerate(order, start=1):
                path[number:, decision] = self._anchor[decision]
            yield path[int(np.argmax(self._region.within(path)))].tolist()

    def _listed(self, random: np.random.Generator) -> Iterator[Sequence[int]]:
        self._make_list()
        if not self._list:
            return
        for place in random.integers(len(self._list), size=64).tolist():
            yield self._list[place]
        left = [codes for codes in self._list if codes not in self._seen]
        if left:
            yield left[int(random.integers(len(left)))]

    def _new(self, codes: Sequence[int]) -> Architecture | None:
        """A feasible architecture, if it is new."""
        if self._hides:
            return self.accept(self.space.decode(codes))
        if (own := tuple(codes)) in self._seen:
            return None
        self._seen.add(own)
        return self.space.decode(own)

    def _are_few(self) -> bool:
        """Whether so many of all that are feasible were seen that a list of them is better, and there is one."""
        if self._log_count > math.log(ENUMERABLE) or len(self._seen) < math.exp(self._log_count) / 4:
            return False
        self._make_list()
        return self._list is not None

    def _make_list(self) -> None:
        """List all that are feasible, if they are few; else that is not tried again."""
        if self._list is not None or not self._is_listable:
            return
        limit = ENUMERABLE // 10 if self._hides else ENUMERABLE  # each spelling is looked at
        codes = self._region.listed(limit, None if self._tilted is None else self._tilted.slopes)
        if codes is None and self._is_small():
            codes = np.array([self.space.encode(architecture) for architecture in self.space.grid()])
        self._is_listable = codes is not None
        if codes is None:
            return
        if self._hides and len(codes):  # one subnet in many spellings
            seen = (self.space.encode(self.space.canonical(self.space.decode(row))) for row in codes.tolist())
            codes = np.array(sorted(set(seen)))
        self._list = [tuple(row) for row in codes[self._region.within(codes)].tolist()]

    def _is_small(self) -> bool:
        try:
            return self.space.size <= ENUMERABLE
        except SpaceError:  # constraints tie too many decisions together to count
            return False

    # ---- one that is feasible ----------------------------------------------------------------------------------------

    def _find_anchor(self) -> NDArray[np.int64]:
        """An architecture that is feasible; how the others are drawn is decided on the way."""
        if not self._region.terms:
            return np.array(self.space.encode(self.space.default))
        codes = self._region.random(np.random.default_rng(0), _SEEN)
        within = self._region.within(codes)
        self._share = float(within[_SMALLEST:].mean())  # the first may have been made to obey
        self._log_count += math.log(self._share) if self._share else 0.0
        if self._share < _COMMON:
            codes = np.concatenate([codes, self._tilt()])
            within = self._region.within(codes)
        if within.any():
            return np.array(codes[within.argmax()], dtype=np.int64)
        if self._are_few() and self._list:
            return np.array(self._list[0])
        if self.budget is None or self.table is None:
            return np.array(self.space.encode(self.space.default))
        found, is_within = closest(self._region, self.table, self.budget, codes)
        if is_within:
            return found
        is_certain = self._list is not None or (self._tilted is not None and self._tilted.is_impossible)
        raise self._infeasible(self.table(self.space.decode(found.tolist())), self.budget, is_certain)

    def _tilt(self) -> NDArray[Any]:
        """Set up how rare architectures are drawn; returns some that are near the bounds."""
        self._tilted = tilted = Tilted(self._region)
        self._share, self._log_count = tilted.rate, tilted.log_count
        if not tilted.rate and not self._region.is_whole:
            self._share, self._log_count = _UNKNOWN, math.inf
        elif tilted.rate < _RARE and tilted.log_count < math.log(ENUMERABLE):
            self._log_count = -math.inf  # a list is made at once
        return tilted.near(np.random.default_rng(0), _SEEN)

    @staticmethod
    def _infeasible(costs: Costs, budget: Budget, is_certain: bool) -> InfeasibleBudgetError:
        found = ", ".join(f"{metric} {costs[metric]:.6g}" for metric in budget.bounds)
        return InfeasibleBudgetError(
            f"no architecture {'is' if is_certain else 'was found'} within {budget}, though each bound can be met alone; the "
            f"closest has {found}"
        )
