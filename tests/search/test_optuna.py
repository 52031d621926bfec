"""Samplers of Optuna: what they are told is what was evaluated."""

import logging
import sys
import warnings

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import spaces

from mutorch.cost import Budget
from mutorch.errors import ConfigError, MissingExtraError, SpaceError
from mutorch.search import Feasible, OptunaStrategy, Trial, search_space
from mutorch.search.optuna_space import SAMPLERS, distributions, from_params, make_sampler, quiet, to_params
from mutorch.space import Decision, SearchSpace

SPACE = SearchSpace(
    [
        Decision("op", ("conv", "skip")),
        Decision("kernel", (3, 5, 7), when=(("op", "conv"),)),
        Decision("width", (8, 16, 64)),
        Decision("size", ([64, 96], [64, 64])),
        Decision("norm", (True, False)),
    ]
)


def score(architecture):
    return architecture["width"] + architecture["kernel"] + 10 * architecture["norm"]


def search_with(strategy, evaluate=score, **options):
    """The history, and the strategy that was made for it."""
    made = []

    def factory(feasible, seed):
        made.append(strategy(feasible, seed))
        return made[-1]

    return search_space(SPACE, evaluate, strategy=factory, **{"num_trials": 25, **options}), made[0]


def completed(study):
    return [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]


# ---- spaces ----------------------------------------------------------------------------------------------------------


@given(spaces(), st.integers(0, 100), st.sampled_from([True, False, "all"]))
@settings(max_examples=30, deadline=None)
def test_an_architecture_comes_back_from_its_parameters_which_the_distributions_hold(space, seed, ordered):
    architecture = space.canonical(space.sample(seed))
    params = to_params(space, architecture, ordered=ordered)
    assert from_params(space, params, ordered=ordered) == architecture
    with quiet():
        for name, distribution in distributions(space, ordered=ordered).items():
            assert distribution._contains(distribution.to_internal_repr(params[name]))


def test_numbers_are_numbers_and_sizes_are_steps():
    found = distributions(SPACE)
    assert found["kernel"] == optuna.distributions.IntDistribution(3, 7, step=2)
    assert found["width"] == found["width"].__class__(0, 2)
    assert to_params(SPACE, SPACE.max | {"size": [64, 96]})["size"] == 1  # the second from the smallest
    assert found["norm"] == optuna.distributions.CategoricalDistribution([True, False])
    assert distributions(SPACE, ordered=False)["size"].choices == ("[64, 96]", "[64, 64]")
    assert distributions(SPACE, ordered="all")["op"] == optuna.distributions.IntDistribution(0, 1)


def test_hidden_decisions_may_be_left_out_of_parameters_and_others_not():
    params = {"op": "skip", "width": 1, "size": 0, "norm": False}
    assert from_params(SPACE, params)["kernel"] == 3
    with pytest.raises(SpaceError, match="no 'kernel', which matters here"):
        from_params(SPACE, params | {"op": "conv"})
    with pytest.raises(SpaceError, match="no decision 'widht'; did you mean 'width'"):
        from_params(SPACE, {"widht": 1})
    with pytest.raises(SpaceError, match="'width' cannot be 64"):
        from_params(SPACE, params | {"width": 64})


# ---- what a study is told --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_study_has_what_was_evaluated_and_what_came_of_it(sampler):
    history, strategy = search_with(lambda part, seed: OptunaStrategy(part, seed, sampler=sampler))
    ordered = "all" if sampler == "cmaes" else True
    told = sorted(completed(strategy.study), key=lambda trial: trial.user_attrs["index"])
    assert [from_params(SPACE, t.params, ordered=ordered) for t in told] == [t.architecture for t in history]
    assert [t.value for t in told] == [t.score for t in history]


def test_missed_constraints_are_constraints_of_the_study_and_several_objectives_are_maximised():
    history, strategy = search_with(
        lambda part, seed: OptunaStrategy(part, seed, sampler="nsga2"),
        lambda a: {"score": score(a), "width": a["width"]},
        objective=["score", "-width"],
        constraints={"width": 16},
    )
    told = completed(strategy.study)
    assert [t.values for t in told] == [list(t.values) for t in history]
    missed = {t.user_attrs["index"] for t in strategy.study.best_trials} & {t.index for t in history if t.violation}
    assert not missed
    assert any(trial.violation for trial in history)


def test_a_sampler_without_constraints_is_told_values_behind_all_that_keep_to_them():
    history, strategy = search_with(
        lambda part, seed: OptunaStrategy(part, seed, sampler="cmaes"),
        lambda a: {"score": score(a), "width": a["width"]},
        constraints={"width": 16},
    )
    value = {t.user_attrs["index"]: t.value for t in completed(strategy.study)}
    for late in list(history)[10:]:
        if late.violation:
            assert value[late.index] < min(value[t.index] for t in history if t.is_feasible and t.index < late.index)


def test_what_failed_or_gave_no_number_is_a_failed_trial():
    def evaluate(architecture):
        if architecture["op"] == "skip":
            raise RuntimeError("out of memory")
        return float("nan") if architecture["width"] == 8 else score(architecture)

    history, strategy = search_with(OptunaStrategy, evaluate, on_error="record")
    good = [t for t in history if t.error is None and t.score > 0]
    assert len(completed(strategy.study)) == len(good) < len(history)


def test_a_proposal_outside_of_the_budget_is_replaced_by_something_near(make_toy):
    toy = make_toy(blocks=6)
    part = Feasible(toy.space, toy.table, Budget.parse({"macs": "15%"}, toy.table))
    strategy = OptunaStrategy(part, 0, sampler="tpe", num_objectives=1)
    for index in range(40):
        architecture = strategy.ask()
        assert part.budget.allows(toy.table(architecture))
        strategy.tell(Trial(index, architecture, toy.score(architecture)))
    params = [
        toy.space.decode([*toy.space.encode(from_params(toy.space, t.params))]) for t in completed(strategy.study)
    ]
    assert all(part.budget.allows(toy.table(architecture)) for architecture in params)


# ---- samplers and studies of one's own -------------------------------------------------------------------------------


def test_a_sampler_of_ones_own_is_taken_as_it_is_or_from_a_function_of_seed_and_number_of_objectives():
    given = []

    def factory(seed, num_objectives):
        given.append((seed, num_objectives))
        return optuna.samplers.RandomSampler(seed=seed)

    by_function, _ = search_with(lambda part, seed: OptunaStrategy(part, seed, sampler=factory), seed=5)
    by_instance, strategy = search_with(
        lambda part, seed: OptunaStrategy(part, seed, sampler=optuna.samplers.RandomSampler(seed=seed)), seed=5
    )
    assert given == [(5, 1)]
    assert [t.architecture for t in by_function] == [t.architecture for t in by_instance]
    assert isinstance(strategy.study.sampler, optuna.samplers.RandomSampler)


def test_a_study_of_ones_own_keeps_the_trials_and_its_sampler():
    with quiet():
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    sampler = study.sampler
    history, strategy = search_with(lambda part, seed: OptunaStrategy(part, seed, study=study))
    assert strategy.study is study
    assert study.sampler is sampler
    assert study.best_value == history.best.score


def test_wrong_samplers_and_studies_are_refused():
    part = Feasible(SPACE)
    with quiet():
        minimising, used = optuna.create_study(), optuna.create_study(direction="maximize")
    used.enqueue_trial({"norm": True})
    with pytest.raises(ConfigError, match="no sampler 'tpee'; did you mean 'tpe'"):
        OptunaStrategy(part, 0, sampler="tpee")
    with pytest.raises(ConfigError, match=r"must all be 'maximize'.*they are \['minimize'\]"):
        OptunaStrategy(part, 0, study=minimising)
    with pytest.raises(ConfigError, match="has trials already"):
        OptunaStrategy(part, 0, study=used)
    with pytest.raises(ConfigError, match="CMA-ES has one objective, and there are 2"):
        OptunaStrategy(part, 0, sampler="cmaes", num_objectives=2)
    with pytest.raises(ConfigError, match="a sampler is a name, an Optuna sampler or a function"):
        OptunaStrategy(part, 0, sampler=3, num_objectives=1)


# ---- manners ---------------------------------------------------------------------------------------------------------


def test_optuna_is_silent_and_its_settings_are_as_before(capfd):
    before = optuna.logging.get_verbosity(), list(warnings.filters)
    for sampler in SAMPLERS:
        search_with(lambda part, seed, sampler=sampler: OptunaStrategy(part, seed, sampler=sampler), num_trials=12)
    assert (optuna.logging.get_verbosity(), list(warnings.filters)) == before
    assert logging.getLogger("optuna").level == before[0]
    assert capfd.readouterr().err == ""


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"mutorch\[optuna\]"):
        search_space(SPACE, score, strategy="tpe")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_by_name_are_seeded(sampler):
    drawn = []
    for seed in (1, 1, 2):
        with quiet():
            study = optuna.create_study(direction="maximize", sampler=make_sampler(sampler, seed))
            drawn.append(study.ask(distributions(SPACE, ordered="all")).params)
    assert drawn[0] == drawn[1] != drawn[2]
