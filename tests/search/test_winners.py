"""Latency in a search: a table built of few measurements, and the best measured again."""

import pytest
import torch

from mutorch.cost import LatencyTable
from mutorch.errors import BudgetError, ConfigError, ResumeError
from mutorch.search import search
from mutorch.subnet import LatencyRunner, latency_table

WEIGHTS = {"thin": 4, "wide": 8, "huge": 16}


class Board:
    """A device that takes a millisecond, and a hundredth for each parameter; it remembers what it measured."""

    def __init__(self, drift=1.0):
        self.measured, self.drift = [], drift

    def __call__(self, model, inputs):
        elements = sum(parameter.numel() for parameter in model.parameters())
        self.measured.append(elements)
        return self.drift * (1 + elements / 100)


def run(toy, board, **options):
    options = {"num_trials": 30, "example_inputs": toy.example_inputs, "seed": 1, **options}
    return search(toy.net, toy.mutator, toy.evaluate, runner=LatencyRunner(board), **options)


def milliseconds(toy, architecture):
    return 1 + toy.table(architecture).params / 100


def test_a_runner_makes_latency_a_budget_an_objective_and_a_cost(make_toy):
    toy = make_toy(4)
    history = run(toy, Board(), budget={"latency_ms": (1.1, 1.3)}, objective=["score", "-latency_ms"])
    for trial in history:
        assert trial.costs["latency_ms"] == pytest.approx(milliseconds(toy, trial.architecture), abs=1e-6)
        assert 1.1 <= trial.costs["latency_ms"] <= 1.3
        assert trial.values[1] == -trial.costs["latency_ms"]


def test_the_best_are_measured_again_and_none_that_is_outside_then_is_the_best(make_toy):
    toy, board = make_toy(4), Board()
    table = toy.table.with_metric(
        "latency_ms", latency_table(toy.net, toy.mutator, toy.example_inputs, runner=LatencyRunner(board))
    )
    board.drift = 1.1  # the machine is slower now than when it was measured
    history = run(toy, board, table=table, budget={"latency_ms": 1.2}, num_trials=120)
    ranked = sorted(history, key=lambda trial: trial.key)
    assert set(history.measured) >= {trial.index for trial in ranked[:5]}
    for index, record in history.measured.items():
        trial = history.trials[index]
        assert record.measured.median_ms == pytest.approx(1.1 * milliseconds(toy, trial.architecture))
        assert record.predicted_ms == pytest.approx(milliseconds(toy, trial.architecture), abs=1e-6)
    assert history.measured[history.best.index].within
    assert not history.measured[ranked[0].index].within
    assert history.best.score < ranked[0].score
    assert [t.index for t in history.top(120)[-3:]] == [
        i for i in (t.index for t in ranked) if i in history.measured and not history.measured[i].within
    ][-3:]


def test_where_none_is_within_when_measured_again_it_says_so(make_toy):
    toy, board = make_toy(4), Board()
    table = toy.table.with_metric(
        "latency_ms", latency_table(toy.net, toy.mutator, toy.example_inputs, runner=LatencyRunner(board))
    )
    board.drift = 3.0
    with pytest.warns(UserWarning, match="none of the 20 best is within the bound when measured again: measured 3"):
        history = run(toy, board, table=table, budget={"latency_ms": 1.4})
    assert history.best.index not in history.measured


def test_the_table_is_kept_beside_the_log_so_that_the_search_goes_on_with_the_same(make_toy, tmp_path):
    toy, log = make_toy(4), tmp_path / "run.jsonl"
    options = {"budget": {"latency_ms": "80%"}, "log": log}
    run(toy, Board(), num_trials=12, **options)
    resumed = run(toy, Board(drift=1.05), **options)
    whole = run(make_toy(4), Board(), budget={"latency_ms": "80%"})
    assert [t.architecture for t in resumed] == [t.architecture for t in whole]
    assert [t.costs for t in resumed] == [t.costs for t in whole]
    assert LatencyTable.load(f"{log}.latency.json", toy.space)(toy.space.max) == pytest.approx(
        milliseconds(toy, toy.space.max), abs=1e-6
    )


def test_latencies_of_another_device_are_not_taken_for_those_of_this_one(make_toy, tmp_path):
    toy, log = make_toy(4), tmp_path / "run.jsonl"

    def options(**device):
        return {"runner": LatencyRunner(Board(), **device), "log": log, "example_inputs": toy.example_inputs}

    search(toy.net, toy.mutator, toy.evaluate, num_trials=3, **options(device="phone"))
    search(toy.net, toy.mutator, toy.evaluate, num_trials=4, **options(device="phone"))
    with pytest.raises(
        ResumeError, match=r"holds latencies of another setting \(.*phone.*\), and the runner is of watch"
    ):
        search(toy.net, toy.mutator, toy.evaluate, num_trials=5, **options(device="watch"))


def test_a_latency_that_cannot_be_predicted_is_no_budget(make_toy):
    toy = make_toy(4)

    def fickle(model, inputs):
        return 1 + torch.rand((), generator=noise).item() * 10

    noise = torch.Generator().manual_seed(0)
    with pytest.raises(BudgetError, match="latency_ms"):
        search(
            toy.net,
            toy.mutator,
            toy.evaluate,
            runner=LatencyRunner(fickle),
            budget={"latency_ms": 5.0},
            example_inputs=toy.example_inputs,
        )
    assert not toy.evaluated


def test_a_runner_needs_something_to_run_on(toy):
    with pytest.raises(ConfigError, match="a runner measures on example_inputs: give them too"):
        search(toy.net, toy.mutator, toy.evaluate, table=toy.table, runner=LatencyRunner(Board()))
    with pytest.raises(
        ConfigError, match="those who share a search need the same latencies: build one with mutorch.latency_table"
    ):
        run(toy, Board(), log="sqlite:///shared.db")
    with pytest.raises(ConfigError, match="remeasure must be a whole number of at least 1, got 0"):
        run(toy, Board(), remeasure=0)
