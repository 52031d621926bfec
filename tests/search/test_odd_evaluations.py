"""What users' evaluations do that they should not: nothing is ranked wrongly, and nothing is lost."""

import pytest

from mutorch.errors import ConfigError, ResumeError
from mutorch.search import History, Trial, search, search_space
from mutorch.space import Decision, SearchSpace
from mutorch.subnet import LatencyRunner

SPACE = SearchSpace([Decision(f"b{number}", (0, 1, 2)) for number in range(4)])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_may_take_its_architecture_apart(workers, tmp_path):
    def evaluate(architecture):
        first = architecture.pop("b0")
        architecture["b1"] = 99
        return first

    options = {"num_trials": 40, "workers": workers, "log": tmp_path / "log.jsonl"}
    history = search_space(SPACE, evaluate, **options)
    assert all(trial.architecture in SPACE and trial.score == trial.architecture["b0"] for trial in history)
    assert list(search_space(SPACE, evaluate, **options)) == list(history)


@pytest.mark.parametrize("other", [{"loss": 5.0}, 5.0])
def test_results_that_begin_with_another_entry_are_not_ranked_against_each_other(other):
    calls = []

    def evaluate(architecture):
        calls.append(architecture)
        return {"acc": 0.5} if len(calls) < 4 else other

    with pytest.raises(ConfigError, match="and before it was 'acc': name what to maximise by objective='acc'"):
        search_space(SPACE, evaluate, num_trials=6)
    history = search_space(
        SPACE,
        lambda a: {"acc": 0.5, "loss": 1.0} if a["b1"] else {"loss": 1.0, "acc": 0.5},
        objective="acc",
        num_trials=20,
    )
    assert {trial.score for trial in history} == {0.5}


def test_those_who_share_a_search_do_not_mix_entries_either(tmp_path):
    calls = []

    def evaluate(architecture):
        calls.append(architecture)
        return {"acc": 0.5} if len(calls) < 4 else {"loss": 5.0}

    log = f"sqlite:///{tmp_path}/trials.db"
    with pytest.raises(ConfigError, match="begins with 'loss', and before it was 'acc'"):
        search_space(SPACE, evaluate, num_trials=6, log=log)
    calls.clear()
    assert {trial.score for trial in search_space(SPACE, evaluate, num_trials=6, log=log)} == {0.5}


@pytest.mark.parametrize("result", [{}, {"acc": 1.0}, {1: 2.0}, None])
def test_a_result_that_cannot_be_read_is_recorded_like_an_error(result):
    def evaluate(architecture):
        return result if architecture["b0"] == 2 else {"acc": 1.0, "f1": 2.0}

    options = {"objective": ["acc", "f1"], "num_trials": 30}
    history = search_space(SPACE, evaluate, on_error="record", **options)
    assert all((trial.error is not None) == (trial.architecture["b0"] == 2) for trial in history)
    with pytest.raises(ConfigError) as caught:
        search_space(SPACE, evaluate, **options)
    assert any("trial" in note and "'b0': 2" in note for note in caught.value.__notes__)


def test_a_result_without_numbers_in_one_of_several_objectives_ranks_last_quietly():
    history = search_space(
        SPACE,
        lambda a: {"x": float("nan") if a["b0"] == 1 else a["b0"], "y": a["b1"]},
        objective=["x", "y"],
        num_trials=60,
    )
    assert history.pareto()[0].values == (2.0, 2.0)


@pytest.mark.parametrize("error", [ConnectionError("ssh lost"), KeyboardInterrupt()])
def test_a_search_is_not_lost_when_its_best_cannot_be_measured_again(toy, error):
    calls = []

    def board(model, inputs):
        calls.append(1)
        if toy.evaluated:  # the search is over
            raise error
        return 2.0 + sum(parameter.numel() for parameter in model.parameters()) / 1000

    def go():
        return search(
            toy.net,
            toy.mutator,
            toy.evaluate,
            runner=LatencyRunner(board),
            num_trials=6,
            example_inputs=toy.example_inputs,
        )

    if isinstance(error, KeyboardInterrupt):
        assert go().interrupted
    else:
        with pytest.warns(UserWarning, match="the best could not be measured again: ConnectionError: ssh lost"):
            assert len(go()) == 6


def test_a_constraint_on_latency_holds_when_measured_again(toy):
    drift = [1.0]

    def board(model, inputs):
        return drift[0] * (1 + sum(parameter.numel() for parameter in model.parameters()) / 100)

    def evaluate(model):
        drift[0] = 2.0
        return toy.evaluate(model)

    with pytest.warns(UserWarning, match=r"none of the \d+ best is within the bound when measured again"):
        history = search(
            toy.net,
            toy.mutator,
            evaluate,
            runner=LatencyRunner(board),
            constraints={"latency_ms": 1.9},
            num_trials=20,
            example_inputs=toy.example_inputs,
        )
    assert all(one.within is False for one in history.measured.values())


def test_columns_of_a_table_that_would_have_one_name_have_two():
    (row,) = History([Trial(3, {"b1": 2, "index": 7}, 0.5, {"score": 99.0, "b1": 7.0})]).table()
    assert row == {"index": 3, "score": 0.5, "metric.score": 99.0, "b1": 7.0, "choice.b1": 2, "choice.index": 7}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"objective": {"acc": "max"}}, ConfigError, "an objective is a name, or a list of names, with a minus"),
        ({"objective": []}, ConfigError, "an objective is a name, or a list of names"),
        ({"objective": ["acc", "-macs"]}, ConfigError, "returned no 'macs'; .*; costs need example_inputs or a table"),
        ({"constraints": {"-acc": 1}}, ConfigError, "constraints take no minus"),
        ({"constraints": {"acc": float("nan")}}, ConfigError, "nan is no number to compare with"),
        ({"seed": "a"}, ConfigError, "seed must be a whole number, got 'a'"),
        ({"max_seconds": "3"}, ConfigError, "max_seconds must be above 0"),
        ({"on_trial": [None]}, ConfigError, r"on_trial is a function of \(trial, num_trials\)"),
        ({"log": ""}, ResumeError, "a log is a file"),
        ({"log": "/"}, ResumeError, r"got '/' \(a folder\)"),
    ],
)
def test_arguments_that_cannot_be_are_named(options, error, message):
    with pytest.raises(error, match=message):
        search_space(SPACE, lambda a: {"acc": a["b0"]}, num_trials=3, **options)


def test_a_runner_is_a_latency_runner(toy):
    with pytest.raises(ConfigError, match="a runner is a LatencyRunner, such as"):
        search(toy.net, toy.mutator, toy.evaluate, runner=lambda m, i: 1.0, example_inputs=toy.example_inputs)
