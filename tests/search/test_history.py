import math

import pytest

from mutorch.cost import Costs
from mutorch.errors import StateError
from mutorch.search import History, Trial


def trial(index, score, macs=0, **metrics):
    costs = Costs(macs=macs, params=10 * macs, act_mem_mb=0.5, size_mb=0.25)
    return Trial(index, {"op": f"c{index}"}, score, metrics, costs)


def indices(trials):
    return [trial.index for trial in trials]


def test_the_best_come_first_and_the_earliest_of_equal_ones():
    history = History([trial(0, 0.5), trial(1, -math.inf), trial(2, 0.9), trial(3, 0.9), trial(4, 0.1)])
    assert history.best.index == 2
    assert indices(history.top(10)) == [2, 3, 0, 4, 1]
    assert indices(history.top(2)) == [2, 3]
    assert (len(history), indices(history)) == (5, [0, 1, 2, 3, 4])


def test_the_front_holds_what_nothing_beats_in_both_score_and_cost():
    history = History(
        [
            trial(0, 0.5, 30),
            trial(1, 0.5, 20),
            trial(2, 0.4, 20),
            trial(3, 0.9, 90),
            trial(4, 0.3, 10),
            trial(5, 0.9, 90),
        ]
    )
    assert indices(history.pareto()) == indices(history.pareto("params")) == [4, 1, 3]


def test_rows_are_flat():
    (row,) = History([trial(3, 0.5, 7, acc=0.5, loss=2.0)]).table()
    costs = {"macs": 7, "flops": 14, "params": 70, "act_mem_mb": 0.5, "size_mb": 0.25}
    assert row == {"index": 3, "score": 0.5, **costs, "acc": 0.5, "loss": 2.0, "op": "c3"}


def test_what_was_measured_is_a_cost_like_those_that_are_counted():
    costs = [Costs(10 * n, n, 0.5, 0.25, {"latency_ms": 5.0 - n}) for n in range(1, 4)]
    history = History([Trial(n, {"op": n}, n / 10, {}, cost) for n, cost in enumerate(costs)])
    assert [row["latency_ms"] for row in history.table()] == [4.0, 3.0, 2.0]
    assert indices(history.pareto("latency_ms")) == [2]
    with pytest.raises(StateError, match="no metric 'latency'; did you mean 'latency_ms'"):
        history.pareto("latency")


def test_trials_without_costs_are_on_no_front_of_costs():
    assert indices(History([trial(0, 0.5, 30), Trial(1, {}, 0.9)]).pareto()) == [0]


def test_a_search_without_trials_or_costs_says_so():
    with pytest.raises(StateError, match="no trials yet"):
        _ = History([]).best
    with pytest.raises(StateError, match="counted no costs; give it example_inputs or a table"):
        History([Trial(0, {}, 0.5)]).pareto()
    with pytest.raises(StateError, match="no metric 'mac'; did you mean 'macs'"):
        History([trial(0, 1.0)]).pareto("mac")
