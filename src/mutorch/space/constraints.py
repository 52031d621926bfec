"""The constraints of a space: which architectures they allow, and how to find such ones."""

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from mutorch.errors import ConstraintError, SpaceError

from .arithmetic import Operators
from .decision import Architecture, Choice, Decision
from .expression import Expression
from .tied import OutOfStepsError, Tied, where

_CROSSINGS = 10


class Constraints:
    """Expressions that every architecture of a space must make true.

    A hidden decision counts as its default in them. Decisions that share no constraint are looked at apart.

    Args:
        decisions: parents before what they hide.
        expressions: over the names of decisions.

    Errors:
        SpaceError: constraints that provably no architecture obeys.
    """

    def __init__(self, decisions: Sequence[Decision], expressions: Sequence[Expression]) -> None:
        self.tied = _tied(decisions, expressions)
        self._tied_of = {name: tie for tie in self.tied for name in tie.names}
        default = {decision.name: decision.default for decision in decisions}
        for tie in self.tied:
            try:
                found: Architecture | None = tie.nearest(default)
            except OutOfStepsError:  # neither found nor refuted: whoever asks for one is told
                continue
            if found is None:
                raise SpaceError(
                    f"no architecture obeys {tie}; one of these constraints is wrong, or choices are missing"
                )

    def broken(self, architecture: Mapping[str, Choice]) -> tuple[Expression, ...]:
        """The constraints that `architecture` breaks."""
        return tuple(constraint for tie in self.tied for constraint in tie.broken(architecture))

    def check(self, architecture: Mapping[str, Choice]) -> None:
        """Nothing, if no constraint is broken.

        Errors:
            ConstraintError: names the first one that is, and the choices that break it.
        """
        for tie in self.tied:
            for constraint in tie.broken(architecture):
                raise ConstraintError(
                    f"the architecture breaks the constraint '{constraint}': {constraint.at(tie.seen(architecture))}"
                )

    def nearest(self, target: Mapping[str, Choice], fixed: Mapping[str, Choice] | None = None) -> Architecture:
        """`target`, with as few other choices as the constraints need; see `Tied.nearest`.

        Errors:
            SpaceError: there is none with the choices that are `fixed`, or none was found.
        """
        found = dict(target)
        for tie in self.tied:
            near = tie.nearest(target, fixed)
            if near is None:
                raise SpaceError(f"no architecture obeys {tie}{where(fixed or {}, tie.names)}")
            found |= near
        return found

    def redraw(self, architecture: Architecture, random: Random, fixed: Mapping[str, Choice]) -> None:
        """Draw all tied decisions of `architecture` again, in place, until they obey."""
        for tie in self.tied:
            if tie.broken(architecture):
                architecture |= tie.draw(random, fixed)

    def mend(
        self,
        child: Architecture,
        first: Mapping[str, Choice],
        second: Mapping[str, Choice],
        random: Random,
        prob: float,
    ) -> None:
        """Cross tied decisions that break a constraint again, in place; in the end one parent gives them all."""
        for tie in self.tied:
            for _ in range(_CROSSINGS):
                if not tie.broken(child):
                    break
                child |= {name: (second if random.random() < prob else first)[name] for name in tie.names}
            if tie.broken(child):
                parent = second if random.random() < prob else first
                child |= {name: parent[name] for name in tie.names}


def as_constraints(expressions: Iterable[object]) -> tuple[Expression, ...]:
    """The constraints of a space, in the spelling of JSON.

    Errors:
        SpaceError: something that is no expression over decisions.
    """
    found = []
    for expression in expressions:
        if not isinstance(expression, Expression):
            hint = "; write `.eq(...)`, since `==` asks whether two things are the same object" * isinstance(
                expression, bool
            )
            kind = "one over mutables" if isinstance(expression, Operators) else repr(expression)
            raise SpaceError(f"a constraint of a space is an expression over Ref(name), got {kind}{hint}")
        found.append(Expression.from_data(expression.to_data()))
    return tuple(found)


def _tied(decisions: Sequence[Decision], expressions: Sequence[Expression]) -> list[Tied]:
    """The sets of decisions that constraints tie together, each with the decisions that hide its members."""
    parents = {decision.name: [parent for parent, _ in decision.when] for decision in decisions}
    groups: list[tuple[set[str], list[Expression]]] = []
    for expression in expressions:
        names: set[str] = set()
        waiting = list(expression.names())
        while waiting:
            name = waiting.pop()
            if name not in names:
                names.add(name)
                waiting += parents[name]
        apart = [group for group in groups if not group[0] & names]
        together = [group for group in groups if group[0] & names]
        members = [one for _, tied in together for one in tied]
        groups = [*apart, (names.union(*(group[0] for group in together)), [*members, expression])]
    return [Tied([d for d in decisions if d.name in names], tied) for names, tied in groups]
