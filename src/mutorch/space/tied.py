"""Decisions that constraints tie together: what they may be, and how to find it."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from random import Random

from mutorch.errors import SpaceError

from .decision import Architecture, Choice, Decision
from .expression import Expression
from .outcomes import may_hold

LISTED = 20_000
"""Combinations up to which they are listed, so that drawing is uniform however few are allowed."""
_FEW_TRIES = 100
_TRIES_AND_STEPS = ((1_000, 1_000), (10_000, 10_000))
"""Where combinations are too many to list: tries, then steps of a search, then more of both."""
_NEAR_STEPS = 2_000
_STEPS = 10_000
_SHOWN = 200

Options = Callable[[Decision], Sequence[Choice]]


class OutOfStepsError(SpaceError):
    """A search for an allowed combination that was given up."""


class Tied:
    """Decisions that constraints tie together, with those that hide them; all other decisions are independent of them.

    Args:
        decisions: parents before what they hide.
        constraints: over these decisions.
    """

    def __init__(self, decisions: Sequence[Decision], constraints: Sequence[Expression]) -> None:
        self.decisions = tuple(decisions)
        self.constraints = tuple(constraints)
        self.names = tuple(decision.name for decision in decisions)
        place = {name: number for number, name in enumerate(self.names)}
        last = [max((place[name] for name in constraint.names()), default=0) for constraint in constraints]
        pairs = list(zip(constraints, last, strict=True))
        self._complete = [[c for c, end in pairs if end == n] for n in range(len(self.names))]
        self._open = [[c for c, end in pairs if n < end and name in c.names()] for name, n in place.items()]

    @property
    def combinations(self) -> int:
        """How many combinations of choices there are, allowed or not."""
        return math.prod(len(decision.choices) for decision in self.decisions)

    def seen(self, architecture: Mapping[str, Choice]) -> Architecture:
        """The choices as constraints see them: in the spelling of the space, hidden ones at their default."""
        active: set[str] = set()
        values: Architecture = {}
        for decision in self.decisions:
            name = decision.name
            if _is_active(decision, values, active):
                active.add(name)
                values[name] = decision.canonical(architecture[name])
            else:
                values[name] = decision.default
        return values

    def broken(self, architecture: Mapping[str, Choice]) -> list[Expression]:
        """The constraints that do not hold."""
        values = self.seen(architecture)
        return [constraint for constraint in self.constraints if not constraint.evaluate(values)]

    @cached_property
    def codes(self) -> list[tuple[int, ...]]:
        """The allowed combinations as numbers of choices, hidden ones in every way; only for `combinations` that are few."""
        ranges = [range(len(decision.choices)) for decision in self.decisions]
        return [codes for codes in itertools.product(*ranges) if not self.broken(self._decoded(codes))]

    def canonical(self, limit: int) -> Iterator[tuple[Architecture, set[str]]]:
        """Every allowed combination once, hidden decisions at their default, with the decisions that are not hidden.

        Errors:
            OutOfStepsError: after `limit` steps.
        """
        walk = _Walk(self, lambda decision: decision.choices, limit)
        return ((values, set(walk.active)) for values in walk.run())

    def draw(self, random: Random, fixed: Mapping[str, Choice]) -> Architecture:
        """A random allowed combination in which `fixed` keep their choices; uniform, unless nearly none is allowed of many.

        Errors:
            SpaceError: there is none, or none was found.
        """
        is_listed = self.combinations <= LISTED
        found = self._tried(random, fixed, _FEW_TRIES) if is_listed else self._searched(random, fixed)
        if found is None and is_listed:
            places = [(n, d.index(fixed[d.name])) for n, d in enumerate(self.decisions) if d.name in fixed]
            rows = [codes for codes in self.codes if all(codes[n] == code for n, code in places)]
            found = self._decoded(rows[int(random.random() * len(rows))]) if rows else None
        if found is None:
            raise SpaceError(f"no architecture obeys {self}{where(fixed, self.names)}")
        return found

    def _tried(self, random: Random, fixed: Mapping[str, Choice], tries: int) -> Architecture | None:
        for _ in range(tries):
            found = {
                d.name: fixed[d.name] if d.name in fixed else d.choices[int(random.random() * len(d.choices))]
                for d in self.decisions
            }
            if not self.broken(found):
                return found
        return None

    def _searched(self, random: Random, fixed: Mapping[str, Choice]) -> Architecture | None:
        choices = {d.name: [fixed[d.name]] if d.name in fixed else d.choices for d in self.decisions}
        for tries, steps in _TRIES_AND_STEPS:
            found = self._tried(random, fixed, tries)
            if found is not None:
                return found
            walk = _Walk(self, lambda d: random.sample(choices[d.name], len(choices[d.name])), steps, ahead=True)
            try:
                return next(walk.run(), None)
            except OutOfStepsError as error:
                given_up = error
        raise given_up

    def nearest(self, target: Mapping[str, Choice], fixed: Mapping[str, Choice] | None = None) -> Architecture | None:
        """The allowed combination that differs from `target` in the fewest choices and, of these, in the last ones.

        Where many have to change, the first that a search with the choices nearest to `target` in front comes to.

        Returns:
            `None` where there is provably none.

        Errors:
            OutOfStepsError: none was found.
        """
        fixed = fixed or {}
        target = {name: fixed.get(name, target[name]) for name in self.names}
        if not self.broken(target):
            return target
        options = {
            d.name: [fixed[d.name]] if d.name in fixed else _by_distance(d, target[d.name]) for d in self.decisions
        }
        steps = _NEAR_STEPS
        for changes in range(1, len(self.names)):
            walk = _Walk(self, lambda d: options[d.name], steps, target=target, changes=changes)
            try:
                found = next(walk.run(), None)
            except OutOfStepsError:
                break
            if found is not None:
                return found
            steps = walk.steps
        return next(_Walk(self, lambda d: options[d.name], _STEPS, ahead=True).run(), None)

    def __str__(self) -> str:
        texts = [str(constraint) for constraint in self.constraints]
        return " and ".join(f"'{t if len(t) <= _SHOWN else f'{t[:_SHOWN]} ...'}'" for t in texts)

    def _decoded(self, codes: Sequence[int]) -> Architecture:
        return {d.name: d.choices[code] for d, code in zip(self.decisions, codes, strict=True)}


class _Walk:
    """One depth-first search through the combinations of tied decisions.

    Args:
        options: the choices of a decision, in the order to try them.
        steps: how many to take at most.
        ahead: whether to rule out early what can no longer hold, which costs more a step.
        target, changes: only combinations that differ from `target` in at most so many choices.
    """

    def __init__(
        self,
        tied: Tied,
        options: Options,
        steps: int,
        *,
        ahead: bool = False,
        target: Mapping[str, Choice] | None = None,
        changes: int = 0,
    ) -> None:
        self.steps = steps
        self._tied = tied
        self._options = options
        self._ahead = ahead
        self._target = target
        self._changes = changes
        self._values: Architecture = {}
        self.active: set[str] = set()
        # A decision that may be hidden counts as its default then.
        self._domains = {d.name: [*options(d), *([d.default] if d.when else [])] for d in tied.decisions}

    def run(self) -> Iterator[Architecture]:
        """The combinations, one after the other."""
        if not self._tied.decisions:
            return iter([] if self._tied.broken({}) else [{}])
        return self._from(0, self._changes)

    def _from(self, place: int, changes: int) -> Iterator[Architecture]:
        if place == len(self._tied.decisions):
            yield dict(self._values)
            return
        if self._target is not None and changes == 0:  # all that is left stays as it is
            self._take_step()
            found = {**self._target, **self._values}
            if not self._tied.broken(found):
                yield found
            return
        decision = self._tied.decisions[place]
        name = decision.name
        active = _is_active(decision, self._values, self.active)
        domain = self._domains[name]
        if active:
            self.active.add(name)
        for choice in self._options(decision) if active else (decision.default,):
            left = changes - (active and self._target is not None and choice != self._target[name])
            if left < 0:
                continue
            self._take_step()
            self._values[name] = choice
            self._domains[name] = [choice]
            if self._may_hold(place):
                yield from self._from(place + 1, left)
        self._domains[name] = domain
        self.active.discard(name)
        self._values.pop(name, None)

    def _take_step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise OutOfStepsError(
                f"the constraints {self._tied} allow so few of {self._tied.combinations:,} combinations that none was "
                "found; simplify them, or leave out choices that they never allow"
            )

    def _may_hold(self, place: int) -> bool:
        if not all(constraint.evaluate(self._values) for constraint in self._tied._complete[place]):
            return False
        return not self._ahead or all(may_hold(c, self._domains) for c in self._tied._open[place])


def _is_active(decision: Decision, values: Mapping[str, Choice], active: set[str]) -> bool:
    return not decision.when or any(parent in active and values[parent] == choice for parent, choice in decision.when)


def _by_distance(decision: Decision, target: Choice) -> list[Choice]:
    """The choices, the nearest to `target` first: numbers by value, others by place."""
    place = decision.index(target)
    numbers = all(isinstance(choice, int | float) for choice in decision.choices)
    places = sorted(
        range(len(decision.choices)),
        key=lambda n: (n != place, abs(decision.choices[n] - target) if numbers else abs(n - place)),
    )
    return [decision.choices[n] for n in places]


def where(fixed: Mapping[str, Choice], names: Sequence[str]) -> str:
    """The fixed choices among `names`, in words."""
    given = ", ".join(f"{name} = {fixed[name]!r}" for name in names if name in fixed)
    return f" where {given}" if given else ""
