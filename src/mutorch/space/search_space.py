"""The search space of one model: its ordered decisions, and the operations on whole architectures."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from random import Random

from mutorch.errors import SpaceError, nearest

from .conditions import assignments, parents_first
from .constraints import Constraints, as_constraints
from .counting import count
from .decision import Architecture, Choice, Decision
from .expression import Expression
from .rng import RandomSource, as_random
from .tied import Tied

COUNTED = 1_000_000
"""Combinations of decisions that constraints tie together, up to which a space is counted."""
_SHOWN = 20_000
_MUTATIONS = 20


class SearchSpace:
    """The ordered decisions of one model. Immutable; knows nothing of torch.

    An architecture is a `dict` from every decision's name to one of its choices. Where candidates are nested, a
    decision inside a candidate that was not chosen does not matter; `canonical` sets such decisions to their
    defaults, and two architectures are the same subnet exactly when their canonical forms are equal.

    Constraints rule architectures out: they are in no sample, grid or count. A hidden decision counts as its default in
    them.

    Args:
        decisions: what is decided, in order.
        constraints: expressions over decisions that must be true: `Ref("depth") * Ref("width") <= 64`.

    Errors:
        SpaceError: two decisions with one name; conditions or constraints that name what is no decision; constraints
            that provably no architecture obeys.

    Example:
        >>> space = SearchSpace([Decision("op", ("conv3", "skip")), Decision("depth", (2, 3, 4))])
        >>> space.size, space.default
        (6, {'op': 'conv3', 'depth': 2})
        >>> space.encode({"op": "skip", "depth": 4})
        (1, 2)
        >>> space.sample(0) in space
        True
        >>> from mutorch.space import Ref
        >>> SearchSpace(space.decisions, [Ref("op").ne("skip") | (Ref("depth") < 4)]).size
        5
    """

    def __init__(self, decisions: Iterable[Decision], constraints: Iterable[Expression] = ()) -> None:
        self.decisions = tuple(decisions)
        self._by_name = {decision.name: decision for decision in self.decisions}
        if len(self._by_name) != len(self.decisions):
            names = [decision.name for decision in self.decisions]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise SpaceError(f"decision names must be unique; given twice: {', '.join(twice)}")
        for decision in self.decisions:
            for parent, choice in decision.when:
                self[parent].index(choice)
        self._parents_first = parents_first(self.decisions)
        self._conditional = any(decision.when for decision in self.decisions)
        self._table = [(d.name, d.choices, len(d.choices)) for d in self.decisions]
        self._indices = [(d.name, d.numbers) for d in self.decisions]
        self._open = [d.name for d in self.decisions if len(d.choices) > 1]
        self._ends: dict[str, Architecture] = {}
        self.constraints = as_constraints(constraints)
        for constraint in self.constraints:
            for name in constraint.names():
                _ = self[name]
        self._rules = Constraints(self._parents_first, self.constraints) if self.constraints else None

    # ---- what the space is ---------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The decisions' names, in order."""
        return tuple(self._by_name)

    @cached_property
    def size(self) -> int:
        """How many different subnets there are, exactly; a decision that does not matter multiplies nothing.

        Errors:
            SpaceError: constraints tie so many decisions together that they cannot be counted.
        """
        if self._rules is None:
            return self._at_most
        for tie in self.ties:
            combinations = count(tie.decisions)
            if combinations > COUNTED:
                raise SpaceError(
                    f"the space cannot be counted: {tie} tie {len(tie.names)} decisions together, which have "
                    f"{combinations:,} combinations, more than {COUNTED:,}; there are at most {self._at_most:,} architectures"
                )
        return count(self._parents_first, self.ties, 10 * COUNTED)

    @property
    def default(self) -> Architecture:
        """Every decision at its default.

        Where constraints rule that out, the allowed architecture nearest to it: with the fewest other choices, of the
        last decisions rather than the first, and these the nearest ones. `max` and `min` likewise.

        Errors:
            SpaceError: constraints so narrow that no architecture was found.
        """
        return self._with_all("default")

    @property
    def max(self) -> Architecture:
        """Every decision at its largest choice; where constraints rule that out, the nearest one allowed."""
        return self._with_all("largest")

    @property
    def min(self) -> Architecture:
        """Every decision at its smallest choice; where constraints rule that out, the nearest one allowed."""
        return self._with_all("smallest")

    @property
    def ties(self) -> Sequence[Tied]:
        """The sets of decisions that constraints tie together; each is independent of all other decisions."""
        return self._rules.tied if self._rules is not None else ()

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
        return isinstance(other, SearchSpace) and self.decisions == other.decisions and self._text == other._text

    def __hash__(self) -> int:
        return hash(self.decisions)

    def __repr__(self) -> str:
        constraints = f"{len(self.constraints)} constraints, " if self.constraints else ""
        return f"SearchSpace({len(self)} decisions, {constraints}{self._number('')} architectures)"

    # ---- is this an architecture? --------------------------------------------------------------------------------

    def validate(self, architecture: Mapping[str, Choice]) -> None:
        """Nothing, if `architecture` decides every decision of the space with a choice it has.

        Errors:
            SpaceError: unknown or missing decisions, with the nearest names.
            ChoiceError: a choice that its decision does not have.
            ConstraintError: a constraint that does not hold.
        """
        self.validate_choices(architecture)
        if self._rules is not None:
            self._rules.check(architecture)

    def validate_choices(self, architecture: Mapping[str, Choice]) -> None:
        """Like `validate`, constraints aside."""
        self._codes(architecture)

    def _codes(self, architecture: Mapping[str, Choice]) -> list[int]:
        """The numbers of the choices, or an error that says what is wrong with them."""
        try:
            if len(architecture) == len(self._indices):
                return [numbers[architecture[name]] for name, numbers in self._indices]
        except (KeyError, TypeError):
            pass  # lists as choices, or no architecture
        self._check_names(architecture)
        return [decision.index(architecture[decision.name]) for decision in self.decisions]

    def _check_names(self, architecture: Mapping[str, Choice]) -> None:
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

    def contains(self, architecture: object) -> bool:
        """Whether `architecture` belongs to the space; also `architecture in space`."""
        return (
            isinstance(architecture, Mapping)
            and len(architecture) == len(self)
            and all(
                name in architecture and decision.allows(architecture[name]) for name, decision in self._by_name.items()
            )
            and (self._rules is None or not self._rules.broken(architecture))
        )

    __contains__ = contains

    def broken(self, architecture: Mapping[str, Choice]) -> tuple[Expression, ...]:
        """The constraints that `architecture` breaks; its choices must be those of the space."""
        self.validate_choices(architecture)
        return self._rules.broken(architecture) if self._rules is not None else ()

    def is_active(self, name: str, architecture: Mapping[str, Choice]) -> bool:
        """Whether decision `name` matters in `architecture`: it sits in no candidate that was not chosen."""
        conditions = self[name].when
        return not conditions or any(
            self[parent].canonical(architecture[parent]) == choice and self.is_active(parent, architecture)
            for parent, choice in conditions
        )

    def canonical(self, architecture: Mapping[str, Choice]) -> Architecture:
        """The one spelling of this subnet: choices as the space spells them, hidden decisions at their default."""
        if self._rules is not None:
            self.validate(architecture)
        elif self._conditional:
            self.validate_choices(architecture)
        return self._canonical(architecture)

    def _canonical(self, architecture: Mapping[str, Choice]) -> Architecture:
        if not self._conditional:
            codes = self._codes(architecture)
            return {name: choices[code] for (name, choices, _), code in zip(self._table, codes, strict=True)}
        return {
            name: decision.canonical(architecture[name]) if self.is_active(name, architecture) else decision.default
            for name, decision in self._by_name.items()
        }

    def complete(self, partial: Mapping[str, Choice]) -> Architecture:
        """The architecture of a sample that may leave out hidden decisions, in canonical form.

        Errors:
            SpaceError: unknown decisions, with the nearest names; a decision that matters is missing.
            ConstraintError: a constraint that does not hold.

        Example:
            >>> inner = Decision("kernel", (3, 5), when=(("op", "conv"),))
            >>> SearchSpace([Decision("op", ("conv", "skip")), inner]).complete({"op": "skip"})
            {'op': 'skip', 'kernel': 3}
        """
        for name in partial:
            _ = self[name]
        found: Architecture = {}
        for decision in self._parents_first:
            name = decision.name
            if name in partial:
                found[name] = decision.canonical(partial[name])
            elif not self.is_active(name, found):
                found[name] = decision.default
            else:
                raise SpaceError(
                    f"sample missing: decision {name!r} matters here and is not in the sample; "
                    f"{nearest(name, decision.choices)}"
                )
        return self.canonical(found)

    def repair(self, architecture: Mapping[str, Choice], fixed: Mapping[str, Choice] | None = None) -> Architecture:
        """`architecture`, with as few other choices as the constraints need; itself where they are obeyed.

        Args:
            fixed: choices to keep, or to take instead of those of `architecture`.

        Errors:
            SpaceError: no architecture obeys the constraints with what is fixed, or none was found.
        """
        own = self._fixed(fixed)
        found = {**architecture, **own}
        self.validate_choices(found)
        return found if self._rules is None else self._rules.nearest(found, own)

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
        """A random architecture: each decision uniformly and independently.

        Constraints: uniform over what they allow, unless nearly nothing is allowed of very many combinations.

        Errors:
            SpaceError: constraints so narrow that no architecture was found.
        """
        if self._rules is not None:
            return self.random(rng)
        draw = as_random(rng).random
        return {name: choices[int(draw() * count)] for name, choices, count in self._table}

    def random(self, rng: RandomSource, fixed: Mapping[str, Choice] | None = None) -> Architecture:
        """Like `sample`, but what is in `fixed` keeps that choice.

        Errors:
            SpaceError, ChoiceError: `fixed` is no part of an architecture, or none obeys the constraints with it.
        """
        random, own = as_random(rng), self._fixed(fixed)
        found = {name: choices[int(random.random() * count)] for name, choices, count in self._table} | own
        if self._rules is not None:
            self._rules.redraw(found, random, own)
        return found

    def mutate(self, architecture: Mapping[str, Choice], rng: RandomSource, prob: float = 0.1) -> Architecture:
        """Another subnet near this one: each decision that matters changes with probability `prob`, at least one does.

        In a space of one subnet there is no other: the same architecture comes back. So it does where constraints allow
        no neighbour and none of 20 mutations.
        """
        _check_probability(prob)
        random = as_random(rng)
        parent = self.canonical(architecture)
        for _ in range(1 if self._rules is None else _MUTATIONS):
            child = self._mutated(parent, random, prob)
            if self._rules is None or not self._rules.broken(child):
                return child
        neighbours = self.neighbours(parent)
        return random.choice(neighbours) if neighbours else parent

    def _mutated(self, parent: Mapping[str, Choice], random: Random, prob: float) -> Architecture:
        child = dict(parent)
        open_names = [name for name in self._open if not self._conditional or self.is_active(name, child)]
        if not open_names:
            return child
        changed = [name for name in open_names if random.random() < prob]
        for name in changed or [random.choice(open_names)]:
            others = [choice for choice in self[name].choices if choice != child[name]]
            child[name] = random.choice(others)
        return self._canonical(child) if self._conditional else child

    def crossover(
        self,
        first: Mapping[str, Choice],
        second: Mapping[str, Choice],
        rng: RandomSource,
        prob: float = 0.5,
    ) -> Architecture:
        """A child of two: each decision is `second`'s with probability `prob`, else `first`'s.

        Where the child breaks constraints, the decisions that these tie together are crossed again and, after ten times,
        taken from one parent.
        """
        _check_probability(prob)
        self.validate(first)
        self.validate(second)
        random = as_random(rng)
        child = {name: (second if random.random() < prob else first)[name] for name in self._by_name}
        if self._rules is not None:
            self._rules.mend(child, first, second, random, prob)
        return child

    def neighbours(self, architecture: Mapping[str, Choice]) -> list[Architecture]:
        """All subnets that differ in exactly one decision that matters."""
        center = self.canonical(architecture)
        changed = [
            self._canonical({**center, decision.name: choice})
            for decision in self.decisions
            if self.is_active(decision.name, center)
            for choice in decision.choices
            if choice != center[decision.name]
        ]
        return changed if self._rules is None else [child for child in changed if not self._rules.broken(child)]

    def grid(self, fixed: Mapping[str, Choice] | None = None) -> Iterator[Architecture]:
        """Every subnet once, in canonical form; the last decision moves fastest where none is nested.

        Args:
            fixed: choices to keep: only subnets that have them, or in which they are hidden.
        """
        own = self._fixed(fixed)
        choices = {d.name: (own[d.name],) if d.name in own else d.choices for d in self.decisions}
        for decided in assignments(self._parents_first, choices, self.constraints, self.is_active):
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
        codes = tuple(self._codes(architecture))
        if self._rules is not None:
            self._rules.check(architecture)
        return codes

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
        decisions = [d.to_dict() for d in self.decisions]
        if not self.constraints:
            return json.dumps({"version": 1, "decisions": decisions})
        return json.dumps(
            {"version": 2, "decisions": decisions, "constraints": [c.to_data() for c in self.constraints]}
        )

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
        version = 2 if isinstance(data, dict) and "constraints" in data else 1
        if not isinstance(data, dict) or data.get("version") != version or "decisions" not in data:
            raise SpaceError(f"not a search space of version 1, or 2 with constraints: {text[:80]!r}")
        constraints = [Expression.from_data(constraint) for constraint in data.get("constraints", ())]
        return cls([Decision.from_dict(decision) for decision in data["decisions"]], constraints)

    def report(self) -> str:
        """A table of the decisions for people: one line each, then the constraints and the size."""
        width = max((len(name) for name in self.names), default=0)
        lines = [
            f"{d.name:<{width}}  {len(d.choices):>3}  {', '.join(str(c) for c in d.choices)}"
            + (f"  (when {' or '.join(f'{p} = {c}' for p, c in d.when)})" if d.when else "")
            for d in self.decisions
        ]
        lines += [f"must hold: {constraint}" for constraint in self.constraints]
        return "\n".join([*lines, f"{len(self)} decisions, {self._number(',')} architectures"])

    # ---- constraints ---------------------------------------------------------------------------------------------

    @cached_property
    def _at_most(self) -> int:
        """The size without constraints."""
        if not self._conditional:
            return math.prod(len(decision.choices) for decision in self.decisions)
        return count(self._parents_first)

    def _number(self, style: str) -> str:
        """The size for people, where it takes no time to count."""
        if all(tie.combinations <= _SHOWN for tie in self.ties):
            return format(self.size, style)
        return f"at most {format(self._at_most, style)}"

    @cached_property
    def _text(self) -> str:
        return json.dumps([constraint.to_data() for constraint in self.constraints])

    def _with_all(self, kind: str) -> Architecture:
        if kind not in self._ends:
            self._ends[kind] = self.repair({decision.name: getattr(decision, kind) for decision in self.decisions})
        return dict(self._ends[kind])

    def _fixed(self, fixed: Mapping[str, Choice] | None) -> Architecture:
        return {name: self[name].canonical(choice) for name, choice in (fixed or {}).items()}


def _check_probability(prob: float) -> None:
    if not 0 <= prob <= 1:
        raise SpaceError(f"a probability must be between 0 and 1, got {prob}")
