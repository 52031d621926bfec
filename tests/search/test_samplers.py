"""Strategies find what is good: sooner than random search, and fronts that are known."""

import functools
import itertools
import math
import statistics
from functools import partial

import numpy as np
import optuna
import pytest

from mutorch.errors import ConfigError
from mutorch.search import (
    Evolution,
    Feasible,
    LocalSearch,
    OptunaStrategy,
    PredictorGuided,
    RegularizedEvolution,
    Trial,
    search_space,
)
from mutorch.search.strategies import STRATEGIES
from mutorch.space import Decision, Ref, SearchSpace

LEARNING = [name for name in STRATEGIES if name != "random"]


def numbers(decisions, choices=4):
    return SearchSpace([Decision(f"d{n}", tuple(range(choices))) for n in range(decisions)])


# ---- better than random search ---------------------------------------------------------------------------------------

PLANTED = SearchSpace(
    [Decision(f"d{n}", (0, 1, 2, 3) if n % 2 else ("a", "b", "c", "d")) for n in range(8)],
)


def planted(seed):
    """Each decision adds something, and so do pairs of neighbours; there is noise."""
    draw = np.random.default_rng(seed)
    alone, pairs = np.sort(draw.normal(size=(8, 4)), axis=1), 0.5 * draw.normal(size=(7, 4, 4))

    def score(architecture):
        codes = np.array(PLANTED.encode(architecture))
        noise = 0.1 * np.random.default_rng([seed, *codes]).normal()
        return float(alone[np.arange(8), codes].sum() + pairs[np.arange(7), codes[:-1], codes[1:]].sum() + noise)

    return score


@functools.cache
def mean_best(strategy, num_trials):
    return statistics.mean(
        search_space(PLANTED, planted(seed), strategy=strategy, num_trials=num_trials, seed=seed).best.score
        for seed in range(4)
    )


@pytest.mark.parametrize("strategy", LEARNING)
def test_every_strategy_finds_better_than_random_search(strategy):
    num_trials = 200 if strategy == "cmaes" else 120  # half of the decisions have no order
    assert mean_best(strategy, num_trials) > mean_best("random", num_trials) + 0.2


@pytest.mark.parametrize("model", ["process", "ensemble"])
def test_the_predictor_finds_more_than_evolution(model):
    assert mean_best(partial(PredictorGuided, model=model), 50) > mean_best("evolution", 50) + 0.5


def test_a_predictor_is_one_of_those_there_are():
    with pytest.raises(ConfigError, match="no model 'proces'; did you mean 'process'"):
        PredictorGuided(Feasible(PLANTED), 0, model="proces")


# ---- fronts ----------------------------------------------------------------------------------------------------------


class TwoSums:
    """A number adds itself to the size, and to the quality with diminishing returns: the best of each size is greedy."""

    def __init__(self, decisions=8, choices=3):
        self.space = numbers(decisions, choices)
        self.gains = {f"d{n}": [(1 + 0.13 * n) * math.sqrt(k) for k in range(choices)] for n in range(decisions)}
        steps = [high - low for gains in self.gains.values() for low, high in itertools.pairwise(gains)]
        self.front = list(itertools.accumulate([0.0, *sorted(steps, reverse=True)]))  # by size

    def __call__(self, architecture):
        quality = sum(self.gains[name][choice] for name, choice in architecture.items())
        return {"quality": quality, "size": sum(architecture.values())}

    def share_found(self, strategy, num_trials, seed=0):
        history = search_space(
            self.space, self, strategy=strategy, objective=["quality", "-size"], num_trials=num_trials, seed=seed
        )
        found = {int(trial.metrics["size"]): trial.score for trial in history.pareto()}
        hits = sum(math.isclose(found.get(size, -1.0), quality) for size, quality in enumerate(self.front))
        return hits / len(self.front)


def test_the_known_front_is_a_front():
    problem = TwoSums(4)
    all_of_it = search_space(problem.space, problem, objective=["quality", "-size"], num_trials=problem.space.size)
    assert [trial.score for trial in reversed(all_of_it.pareto())] == pytest.approx(problem.front)


@pytest.mark.parametrize("seed", range(2))
def test_evolution_with_two_objectives_finds_every_point_of_the_known_front(seed):
    assert TwoSums().share_found("evolution", 1200, seed) == 1  # 17 points among 6561 architectures


def test_nsga2_of_optuna_recovers_the_known_front():
    def patient(feasible, seed):
        return OptunaStrategy(feasible, seed, sampler=optuna.samplers.NSGAIISampler(population_size=60, seed=seed))

    assert TwoSums().share_found(patient, 2500) == 1


def test_nsga2_by_name_finds_most_of_the_known_front_sooner():
    assert TwoSums().share_found("nsga2", 1200) >= 0.8
    assert TwoSums().share_found("random", 1200) < 0.4


@pytest.mark.parametrize("strategy", ["local", "regularized", "predictor"])
def test_other_strategies_cover_most_of_the_known_front(strategy):
    assert TwoSums(6).share_found(strategy, 200) >= 0.6  # 13 points among 729


# ---- each of them ----------------------------------------------------------------------------------------------------


def tell(strategy, architecture, score, index, **how):
    strategy.tell(Trial(index, architecture, score, **how))


def differing(space, first, second):
    return len(space.diff(first, second))


def test_in_regularized_evolution_the_oldest_dies_however_good_it_is():
    space = numbers(12)
    strategy = RegularizedEvolution(Feasible(space), 0, population=3, tournament=3, starts=4)
    asked = [strategy.ask() for _ in range(4)]
    for index, score in enumerate((9.0, 1.0, 3.0, 2.0)):
        tell(strategy, asked[index], score, index)
    children = [strategy.ask() for _ in range(5)]
    assert all(differing(space, child, asked[2]) <= 2 for child in children)
    assert all(differing(space, child, asked[0]) > 2 for child in children)


def test_a_child_of_regularized_evolution_differs_in_one_decision_while_there_are_such():
    space = numbers(6)
    strategy = RegularizedEvolution(Feasible(space), 0, starts=1, tournament=1)
    first = strategy.ask()
    tell(strategy, first, 1.0, 0)
    assert differing(space, first, strategy.ask()) == 1


def test_local_search_goes_from_neighbour_to_better_neighbour_and_from_a_summit_elsewhere():
    space = numbers(3)
    summit = {"d0": 3, "d1": 3, "d2": 3}
    strategy = LocalSearch(Feasible(space), 0, starts=1)
    center = strategy.ask()
    tell(strategy, center, sum(center.values()), 0)
    for index in range(1, 60):
        neighbour = strategy.ask()
        if differing(space, center, neighbour) > 1:
            break
        tell(strategy, neighbour, sum(neighbour.values()), index)
        if sum(neighbour.values()) > sum(center.values()):
            center = neighbour
    assert center == summit
    assert differing(space, summit, neighbour) > 1


def test_local_search_prefers_what_keeps_to_constraints():
    space = numbers(5)
    strategy = LocalSearch(Feasible(space), 0, starts=2)
    first, second = strategy.ask(), strategy.ask()
    tell(strategy, first, 9.0, 0, violation=1.0)
    tell(strategy, second, 1.0, 1)
    assert all(differing(space, second, strategy.ask()) == 1 for _ in range(5))


def test_the_predictor_asks_for_the_best_of_a_sum_that_it_saw_little_of():
    space = numbers(6)
    history = search_space(space, lambda a: sum(a.values()), strategy="predictor", num_trials=30, ahead=1)
    assert history.best.score == 18  # of 4096


def test_the_predictor_learns_what_misses_a_constraint():
    space = numbers(8)
    history = search_space(
        space,
        lambda a: {"score": sum(a.values()), "size": sum(a[f"d{n}"] for n in range(4))},
        constraints={"size": 4.0},
        strategy="predictor",
        num_trials=80,
    )
    assert history.best.is_feasible
    assert history.best.score >= 15  # 16 is the largest that keeps to it, of 65 536
    later = history.trials[40:]
    assert sum(trial.is_feasible for trial in later) > sum(trial.is_feasible for trial in history.trials[:40])


def test_candidates_of_the_predictor_asked_for_at_once_are_not_all_alike():
    space = numbers(10)
    strategy = PredictorGuided(Feasible(space), 0, starts=8)
    for index in range(8):
        architecture = strategy.ask()
        tell(strategy, architecture, float(sum(architecture.values())), index)
    asked = [strategy.ask() for _ in range(8)]
    apart = [differing(space, one, other) for one, other in itertools.combinations(asked, 2)]
    assert statistics.mean(apart) > 2


def test_the_predictor_looks_at_part_of_a_long_search_and_keeps_the_best():
    space = SearchSpace([Decision(f"d{n}", (0, 1, 2, 3)) for n in range(6)], [Ref("d0") + Ref("d1") <= 5])
    strategy = PredictorGuided(Feasible(space), 0, max_trials=20, pool=32)
    for index in range(60):
        architecture = strategy.ask()
        assert architecture in space
        tell(strategy, architecture, float(sum(architecture.values())), index)
    chosen = strategy._chosen()
    assert len({trial.index for trial in chosen}) == len(chosen) == 20
    assert max(trial.score for trial in strategy._told) in [trial.score for trial in chosen]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda part: RegularizedEvolution(part, 0, population=4, tournament=5), "at most the population's 4, got 5"),
        (lambda part: LocalSearch(part, 0, starts=0), "starts must be at least 1, got 0"),
        (lambda part: PredictorGuided(part, 0, pool=0), "pool must be at least 1, got 0"),
        (lambda part: Evolution(part, 0, population=1), "population must be at least 2, got 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make(Feasible(numbers(2)))
