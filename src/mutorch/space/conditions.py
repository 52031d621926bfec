"""Decisions that only matter inside a candidate: their order, and every way to take them all."""

import graphlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from mutorch.errors import SpaceError

from .decision import Architecture, Choice, Decision
from .expression import Expression


def parents_first(decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """The decisions in an order in which those that hide others come before these, else as given.

    Errors:
        SpaceError: conditions in a circle.
    """
    graph = {d.name: {parent for parent, _ in d.when} for d in decisions}
    try:
        # static_order does not promise the given order among equals, so sort by depth, then position.
        order = list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        raise SpaceError(f"conditions of decisions form a cycle: {' -> '.join(error.args[1])}") from None
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = max((depth[parent] + 1 for parent in graph[name]), default=0)
    return tuple(sorted(decisions, key=lambda decision: depth[decision.name]))


def assignments(
    decisions: Sequence[Decision],
    choices: Mapping[str, Sequence[Choice]],
    constraints: Sequence[Expression],
    is_active: Callable[[str, Architecture], bool],
) -> Iterator[Architecture]:
    """Every way to take the decisions that obeys the constraints, hidden ones at their default.

    Args:
        decisions: parents first.
        choices: what each may be.
    """
    place = {decision.name: number for number, decision in enumerate(decisions)}
    ends: list[list[Expression]] = [[] for _ in decisions]
    for constraint in constraints:
        if constraint.names():
            ends[max(place[name] for name in constraint.names())].append(constraint)
    decided: Architecture = {}

    def further(number: int) -> Iterator[Architecture]:
        if number == len(decisions):
            yield dict(decided)
            return
        decision = decisions[number]
        active = is_active(decision.name, decided)
        for choice in choices[decision.name] if active else (decision.default,):
            decided[decision.name] = choice
            if all(constraint.evaluate(decided) for constraint in ends[number]):
                yield from further(number + 1)
        del decided[decision.name]

    return further(0)
