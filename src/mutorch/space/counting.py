"""How many different subnets a space has, where decisions hide each other and constraints tie some together."""

from collections import Counter
from collections.abc import Mapping, Sequence

from .decision import Decision
from .tied import Tied

_Ways = Counter[frozenset[str]]
"""In how many ways the decisions so far can be taken, by which decisions to come they reveal."""
_Reveals = Mapping[str, Sequence[frozenset[str]]]
"""Decision -> for each of its choices, the decisions that it reveals."""


def count(decisions: Sequence[Decision], ties: Sequence[Tied] = (), limit: int = 0) -> int:
    """The number of subnets, exactly: decision by decision, tied ones together.

    Args:
        decisions: parents before what they hide.
        ties: sets of them that constraints tie together; these are enumerated.
        limit: steps that enumerating one of `ties` may take.

    Errors:
        OutOfStepsError: more steps are needed.
    """
    by_name = {decision.name: decision for decision in decisions}
    revealed: dict[str, list[set[str]]] = {d.name: [set() for _ in d.choices] for d in decisions}
    for decision in decisions:
        for parent, choice in decision.when:
            revealed[parent][by_name[parent].index(choice)].add(decision.name)
    reveals = {name: [frozenset(names) for names in choices] for name, choices in revealed.items()}
    tied = {name: tie for tie in ties for name in tie.names}
    # A decision comes right after the last one that may reveal it, so that few are open at a time.
    rank: dict[str, tuple[int, ...]] = {}
    for position, decision in enumerate(decisions):
        first = tied[decision.name].names[0] if decision.name in tied else decision.name
        before = max((rank[parent] for parent, _ in decision.when), default=())
        rank[decision.name] = (*before, position) if first == decision.name else rank[first]
    ways: _Ways = Counter({frozenset(): 1})
    for decision in sorted(decisions, key=lambda decision: rank[decision.name]):
        tie = tied.get(decision.name)
        if tie is None:
            ways = _with_decision(ways, decision, reveals)
        elif tie.names[0] == decision.name:
            ways = _with_tied(ways, tie, reveals, limit)
    return ways.total()


def _with_decision(ways: _Ways, decision: Decision, reveals: _Reveals) -> _Ways:
    after: _Ways = Counter()
    for revealed, number in ways.items():
        if decision.when and decision.name not in revealed:
            after[revealed] += number
            continue
        for names in reveals[decision.name]:
            after[(revealed - {decision.name}) | names] += number
    return after


def _with_tied(ways: _Ways, tie: Tied, reveals: _Reveals, limit: int) -> _Ways:
    own: _Ways = Counter()
    inside = frozenset(tie.names)
    for values, active in tie.canonical(limit):
        shown = (reveals[d.name][d.index(values[d.name])] for d in tie.decisions if d.name in active)
        own[frozenset[str]().union(*shown) - inside] += 1
    after: _Ways = Counter()
    for revealed, number in ways.items():
        for names, times in own.items():
            after[revealed | names] += number * times
    return after
