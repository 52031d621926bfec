import statistics

import pytest

from mutorch.cost import Budget
from mutorch.errors import ConfigError
from mutorch.search import Evolution, Feasible, RandomSearch, Trial
from mutorch.search.strategies import make_strategy


def play(strategy, score, count):
    """What `search` does, without models: the architectures asked for, and the best score."""
    asked = []
    for _ in range(count):
        architecture = strategy.ask()
        if architecture is None:
            break
        strategy.tell(Trial(len(asked), architecture, score(architecture)))
        asked.append(architecture)
    return asked, max(map(score, asked))


def feasible(toy, spec=None):
    return Feasible(toy.space, toy.table, Budget.parse(spec, toy.table))


@pytest.mark.parametrize("kind", [RandomSearch, Evolution])
def test_a_strategy_is_a_function_of_seed_and_scores(toy, kind):
    runs = [play(kind(feasible(toy), seed), toy.score, 60)[0] for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("kind", [RandomSearch, Evolution])
def test_every_architecture_asked_for_is_new_and_within_the_budget(toy, kind):
    part = feasible(toy, {"macs": "40%", "params": ("10%", None)})
    asked, _ = play(kind(part, 0), toy.score, 150)
    assert len({tuple(a.values()) for a in asked}) == len(asked) == 150
    assert all(part.budget.allows(toy.table(a)) for a in asked)
    assert all(a == toy.space.canonical(a) for a in asked)


@pytest.mark.parametrize("kind", [RandomSearch, Evolution])
def test_a_space_is_asked_for_completely_and_then_ends(make_toy, kind):
    toy = make_toy(blocks=3)
    asked, best = play(kind(feasible(toy), 0), toy.score, 1000)
    assert len(asked) == toy.space.size == 64
    assert best == toy.score(toy.goal)


def test_evolution_finds_better_than_random_search_on_average(toy):
    best = {
        kind: [play(kind(feasible(toy), s), toy.score, 120)[1] for s in range(8)] for kind in (RandomSearch, Evolution)
    }
    assert statistics.mean(best[Evolution]) > statistics.mean(best[RandomSearch]) + 1


def test_the_parents_of_evolution_are_the_best_so_far_and_the_earlier_among_equals(toy):
    evolution = Evolution(feasible(toy), 0, population=3)
    scores = [0.0, 2.0, 1.0, 2.0, float("nan"), 1.0]
    told = []
    for score in scores:
        told.append(evolution.ask())
        evolution.tell(Trial(len(told), told[-1], score))
    assert [trial.architecture for trial in evolution._best] == [told[1], told[3], told[2]]


def test_evolution_starts_as_random_and_goes_on_from_the_best(toy):
    asked, _ = play(Evolution(feasible(toy), 0, population=5, crossover=0.0), toy.score, 6)
    parents = sorted(asked[:5], key=toy.score)
    # One mutation of one of the five, not a sixth random draw: few decisions differ.
    assert min(len(toy.space.diff(parent, asked[5])) for parent in parents) <= 3


def test_children_of_crossover_take_every_decision_from_a_parent(toy):
    asked, _ = play(Evolution(feasible(toy), 0, population=2, crossover=1.0), lambda a: float(a == {}), 3)
    first, second, child = asked
    assert all(child[name] in (first[name], second[name]) for name in toy.space.names)


def test_scores_that_are_no_number_never_become_parents(toy):
    evolution = Evolution(feasible(toy), 0, population=2, crossover=0.0, mutate_prob=0.0)
    asked = [evolution.ask() for _ in range(4)]
    for number, score in enumerate((float("nan"), 1.0, float("nan"), 2.0)):
        evolution.tell(Trial(number, asked[number], score))
    child = evolution.ask()
    assert min(len(toy.space.diff(asked[n], child)) for n in (1, 3)) == 1


def test_wrong_settings_are_refused(toy):
    with pytest.raises(ConfigError, match="population must be at least 2, got 1"):
        Evolution(feasible(toy), 0, population=1)
    with pytest.raises(ConfigError, match="no strategy 'evolve'; did you mean 'evolution'"):
        make_strategy("evolve", feasible(toy), 0)
