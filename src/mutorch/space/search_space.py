"""The search space of one model: its ordered decisions, and the operations on whole architectures."""

import graphlib
import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from mutorch.errors import SpaceError, nearest

from .decision import Architecture, Choice, Decision
from .rng import RandomSource, as_random


class SearchSpace:
    """The ordered decisions of one model. Immutable; knows nothing of torch.

    An architecture is a `dict` from every decision's name to one of its choices. Where candidates are nested, a
    decision inside a candidate that was not chosen does not matter; `canonical` sets such decisions to their
    defaults, and two architectures are the same subnet exactly when their canonical forms are equal.

    Example:
        >>> space = SearchSpace([Decision("op", ("conv3", "skip")), Decision("depth", (2, 3, 4))])
        >>> space.size, space.default
        (6, {'op': 'conv3', 'depth': 2})
        >>> space.encode({"op": "skip", "depth": 4})
        (1, 2)
        >>> space.sample(0) in space
        True
    """

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self.decisions = tuple(decisions)
        self._by_name = {decision.name: decision for decision in self.decisions}
        if len(self._by_name) != len(self.decisions):
            names = [decision.name for decision in self.decisions]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise SpaceError(f"decision names must be unique; given twice: {', '.join(twice)}")
        for decision in self.decisions:
            for parent, choice in decision.when:
                self[parent].index(choice)
        self._parents_first = self._sorted_by_condition()
        self._conditional = any(decision.when for decision in self.decisions)
        self._table = [(d.name, d.choices, len(d.choices)) for d in self.decisions]

    # ---- what the space is ---------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The decisions' names, in order."""
        return tuple(self._by_name)

    @cached_property
    def size(self) -> int:
        """How many different subnets there are, exactly; a decision that does not matter multiplies nothing."""
        if not self._conditional:
            return math.prod(len(decision.choices) for decision in self.decisions)
        return self._size_of_nested()

    @property
    def default(self) -> Architecture:
        """Every decision at its default."""
        return {decision.name: decision.default for decision in self.decisions}

    @property
    def max(self) -> Architecture:
        """Every decision at its largest choice."""
        return {decision.name: decision.largest for decision in self.decisions}

    @property
    def min(self) -> Architecture:
        """Every decision at its smallest choice."""
        return {decision.name: decision.smallest for decision in self.decisions}

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that are equal exactly for equal spaces, in every process."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.decisions)

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.decisions)

    def __getitem__(self, name: str) -> Decision:
        try:
            return self._by_name[name]
        except (KeyError, TypeError):
            raise SpaceError(f"the space has no decision {name!r}; {nearest(name, self.names)}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.decisions == other.decisions

    def __hash__(self) -> int:
        return hash(self.decisions)

    def __repr__(self) -> str:
        return f"SearchSpace({len(self)} decisions, {self.size} architectures)"

    # ---- is this an architecture? --------------------------------------------------------------------------------

    def validate(self, architecture: Mapping[str, Choice]) -> None:
        """Nothing, if `architecture` decides every decision of the space with a choice it has.

        Errors:
            SpaceError: unknown or missing decisions, with the nearest names.
            ChoiceError: a choice that its decision does not have.
        """
        if not isinstance(architecture, Mapping):
            raise SpaceError(f"an architecture is a dict from decision to choice, got {type(architecture).__name__}")
        for name in architecture:
            if name not in self._by_name:
                raise SpaceError(f"the space has no decision {name!r}; {nearest(name, self.names)}")
        missing = [name for name in self._by_name if name not in architecture]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            shown = ", ".join(repr(name) for name in missing[:5])
            raise SpaceError(f"the architecture leaves {len(missing)} undecided: {shown}{more}")
        for name, decision in self._by_name.items():
            decision.index(architecture[name])

    def contains(self, architecture: object) -> bool:
        """Whether `architecture` belongs to the space; also `architecture in space`."""
        return (
            isinstance(architecture, Mapping)
            and len(architecture) == len(self)
            and all(
                name in architecture and decision.allows(architecture[name]) for name, decision in self._by_name.items()
            )
        )

    __contains__ = contains

    def is_active(self, name: str, architecture: Mapping[str, Choice]) -> bool:
        """Whether decision `name` matters in `architecture`: it sits in no candidate that was not chosen."""
        conditions = self[name].when
        return not conditions or any(
            self[parent].canonical(architecture[parent]) == choice and self.is_active(parent, architecture)
            for parent, choice in conditions
        )

    def canonical(self, architecture: Mapping[str, Choice]) -> Architecture:
        """The one spelling of this subnet: choices as the space spells them, hidden decisions at their default."""
        self.validate(architecture)
        return {
            name: decision.canonical(architecture[name]) if self.is_active(name, architecture) else decision.default
            for name, decision in self._by_name.items()
        }

    def adapt(self, architecture: Mapping[str, Choice], *, rename: Mapping[str, str] | None = None) -> Architecture:
        """An architecture of an older version of the model: renamed, unknown decisions dropped, missing ones default.

        Errors:
            ChoiceError: a choice that no longer exists; it is never replaced by another.
        """
        rename = rename or {}
        for old, new in rename.items():
            if old not in architecture:
                raise SpaceError(f"nothing to rename: {old!r}; {nearest(old, architecture)}")
            self[new]
        renamed = {rename.get(name, name): choice for name, choice in architecture.items()}
        return {
            name: decision.canonical(renamed[name]) if name in renamed else decision.default
            for name, decision in self._by_name.items()
        }

    # ---- new architectures ---------------------------------------------------------------------------------------

    def sample(self, rng: RandomSource) -> Architecture:
        """A random architecture: each decision uniformly and independently."""
        draw = as_random(rng).random
        return {name: choices[int(draw() * count)] for name, choices, count in self._table}

    def mutate(self, architecture: Mapping[str, Choice], rng: RandomSource, prob: float = 0.1) -> Architecture:
        """Another subnet near this one: each decision that matters changes with probability `prob`, at least one does.

        In a space of one subnet there is no other: the same architecture comes back.
        """
        _check_probability(prob)
        random = as_random(rng)
        child = self.canonical(architecture)
        open_names = [d.name for d in self.decisions if len(d.choices) > 1 and self.is_active(d.name, child)]
        if not open_names:
            return child
        changed = [name for name in open_names if random.random() < prob]
        for name in changed or [random.choice(open_names)]:
            others = [choice for choice in self[name].choices if choice != child[name]]
            child[name] = random.choice(others)
        return self.canonical(child)

    def crossover(
        self,
        first: Mapping[str, Choice],
        second: Mapping[str, Choice],
        rng: RandomSource,
        prob: float = 0.5,
    ) -> Architecture:
        """A child of two: each decision is `second`'s with probability `prob`, else `first`'s."""
        _check_probability(prob)
        self.validate(first)
        self.validate(second)
        draw = as_random(rng).random
        return {name: (second if draw() < prob else first)[name] for name in self._by_name}

    def neighbours(self, architecture: Mapping[str, Choice]) -> list[Architecture]:
        """All subnets that differ in exactly one decision that matters."""
        center = self.canonical(architecture)
        return [
            self.canonical({**center, decision.name: choice})
            for decision in self.decisions
            if self.is_active(decision.name, center)
            for choice in decision.choices
            if choice != center[decision.name]
        ]

    def grid(self) -> Iterator[Architecture]:
        """Every subnet once, in canonical form; the last decision moves fastest where none is nested."""
        for decided in self._assignments(self._parents_first, {}):
            yield {name: decided[name] for name in self._by_name}

    def diff(self, first: Mapping[str, Choice], second: Mapping[str, Choice]) -> dict[str, tuple[Choice, Choice]]:
        """The decisions in which two architectures differ, with both choices."""
        self.validate(first)
        self.validate(second)
        return {
            name: (first[name], second[name])
            for name, decision in self._by_name.items()
            if decision.index(first[name]) != decision.index(second[name])
        }

    # ---- other forms ---------------------------------------------------------------------------------------------

    def encode(self, architecture: Mapping[str, Choice]) -> tuple[int, ...]:
        """The numbers of the choices, in the order of the decisions."""
        self.validate(architecture)
        return tuple(decision.index(architecture[decision.name]) for decision in self.decisions)

    def decode(self, codes: Sequence[int]) -> Architecture:
        """The architecture that `encode` numbered.

        Errors:
            SpaceError: too many or too few numbers, or one out of range.
        """
        if len(codes) != len(self):
            raise SpaceError(f"the space has {len(self)} decisions, got {len(codes)} numbers")
        for decision, code in zip(self.decisions, codes, strict=True):
            if not 0 <= code < len(decision.choices):
                raise SpaceError(
                    f"decision {decision.name!r} numbers its choices 0 to {len(decision.choices) - 1}, got {code}"
                )
        return {d.name: d.choices[int(code)] for d, code in zip(self.decisions, codes, strict=True)}

    def to_json(self) -> str:
        """The space as JSON text; `from_json` reads it."""
        return json.dumps({"version": 1, "decisions": [d.to_dict() for d in self.decisions]})

    @classmethod
    def from_json(cls, text: str) -> "SearchSpace":
        """The space that `to_json` wrote.

        Errors:
            SpaceError: not JSON, another version, or not a space.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpaceError(f"not a search space in JSON: {error}") from error
        if not isinstance(data, dict) or data.get("version") != 1 or "decisions" not in data:
            raise SpaceError(f"not a search space of version 1: {text[:80]!r}")
        return cls(Decision.from_dict(decision) for decision in data["decisions"])

    def report(self) -> str:
        """A table of the decisions for people: one line each, then the size."""
        width = max((len(name) for name in self.names), default=0)
        lines = [
            f"{d.name:<{width}}  {len(d.choices):>3}  {', '.join(str(c) for c in d.choices)}"
            + (f"  (when {' or '.join(f'{p} = {c}' for p, c in d.when)})" if d.when else "")
            for d in self.decisions
        ]
        return "\n".join([*lines, f"{len(self)} decisions, {self.size:,} architectures"])

    # ---- conditions ----------------------------------------------------------------------------------------------

    def _sorted_by_condition(self) -> tuple[Decision, ...]:
        graph = {d.name: {parent for parent, _ in d.when} for d in self.decisions}
        try:
            # static_order does not promise the given order among equals, so sort by depth, then position.
            order = list(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            raise SpaceError(f"conditions of decisions form a cycle: {' -> '.join(error.args[1])}") from None
        depth: dict[str, int] = {}
        for name in order:
            depth[name] = max((depth[parent] + 1 for parent in graph[name]), default=0)
        return tuple(sorted(self.decisions, key=lambda decision: depth[decision.name]))

    def _assignments(self, decisions: Sequence[Decision], decided: Any) -> Iterator[Architecture]:
        if not decisions:
            yield dict(decided)
            return
        decision, rest = decisions[0], decisions[1:]
        active = self.is_active(decision.name, decided)
        for choice in decision.choices if active else (decision.default,):
            decided[decision.name] = choice
            yield from self._assignments(rest, decided)
        del decided[decision.name]

    def _size_of_nested(self) -> int:
        """Counts decision by decision; all that matters of the past is which decisions to come it has revealed."""
        reveals: dict[tuple[str, int], frozenset[str]] = defaultdict(frozenset)
        for decision in self.decisions:
            for parent, choice in decision.when:
                reveals[parent, self[parent].index(choice)] |= {decision.name}
        # A decision comes right after the last one that may reveal it, so that few are open at a time.
        rank: dict[str, tuple[int, ...]] = {}
        for position, decision in enumerate(self._parents_first):
            rank[decision.name] = (*max((rank[parent] for parent, _ in decision.when), default=()), position)
        ways: Counter[frozenset[str]] = Counter({frozenset(): 1})
        for decision in sorted(self.decisions, key=lambda decision: rank[decision.name]):
            after: Counter[frozenset[str]] = Counter()
            for revealed, count in ways.items():
                if decision.when and decision.name not in revealed:
                    after[revealed] += count
                    continue
                for number in range(len(decision.choices)):
                    after[(revealed - {decision.name}) | reveals[decision.name, number]] += count
            ways = after
        return ways.total()


def _check_probability(prob: float) -> None:
    if not 0 <= prob <= 1:
        raise SpaceError(f"a probability must be between 0 and 1, got {prob}")
