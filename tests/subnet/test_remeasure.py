import pytest
import torch
from torch import nn

from mutorch import Budget, CostTable, LatencyRunner, Mutator, OneShotMutableOP, latency_table, remeasure
from mutorch.cost import Measured
from mutorch.errors import BudgetError, CostError
from mutorch.subnet import Remeasured

X = torch.zeros(1, 2)
NET = nn.Sequential(*(OneShotMutableOP({"big": nn.Linear(2, 2), "skip": nn.Identity()}) for _ in range(3)))
MUTATOR = Mutator(NET)
ARCHITECTURES = [MUTATOR.space.sample(number) for number in range(8)]


def board(model, inputs):
    return [1.0 + sum(parameter.numel() for parameter in model.parameters())] * 3


def slower(model, inputs):
    return 2 * board(model, inputs)[0]


TABLE = latency_table(NET, MUTATOR, X, runner=LatencyRunner(board))
COUNTED = CostTable.from_model(MUTATOR, X).with_metric("latency_ms", TABLE)


def size(architecture):
    return 1.0 + 6 * list(architecture.values()).count("big")


def test_the_first_architectures_are_measured_in_their_order():
    found = remeasure(NET, MUTATOR, ARCHITECTURES, LatencyRunner(board), X, top=3)
    assert [one.architecture for one in found] == ARCHITECTURES[:3]
    assert [one.measured.median_ms for one in found] == [size(architecture) for architecture in ARCHITECTURES[:3]]
    assert [one.measured.repeats for one in found] == [3, 3, 3]
    assert all(one.predicted_ms is None and one.within is None and one.off is None for one in found)
    assert len(remeasure(NET, MUTATOR, ARCHITECTURES, LatencyRunner(board), X)) == 8


@pytest.mark.parametrize("table", [TABLE, COUNTED], ids=["latency table", "cost table"])
def test_predictions_stand_beside_what_was_measured(table):
    found = remeasure(NET, MUTATOR, ARCHITECTURES, LatencyRunner(slower), X, table=table, top=5)
    assert [one.predicted_ms for one in found] == [size(architecture) for architecture in ARCHITECTURES[:5]]
    assert [one.off for one in found] == [pytest.approx(1.0)] * 5


@pytest.mark.parametrize("budget", [{"latency_ms": 10.0}, Budget({"latency_ms": (0.0, 10.0)})], ids=["dict", "budget"])
def test_a_bound_that_a_prediction_met_may_not_be_met_by_the_measurement(budget):
    found = remeasure(NET, MUTATOR, ARCHITECTURES, LatencyRunner(slower), X, table=COUNTED, budget=budget)
    assert [one.within for one in found] == [2 * size(architecture) <= 10 for architecture in ARCHITECTURES]
    assert {one.within for one in found} == {True, False}


def test_a_budget_without_a_bound_on_latency_says_nothing():
    assert (
        remeasure(NET, MUTATOR, ARCHITECTURES, LatencyRunner(board), X, budget=Budget({"macs": (0, 9)}))[0].within
        is None
    )


def test_a_record_is_a_line():
    measured = Measured.of([2.0], runtime="eager")
    assert str(Remeasured({}, measured, 1.6, False)) == (
        "measured 2 ms (2 to 2, 1 times, eager), predicted 1.6 ms (+25.0%), OUTSIDE of the bound"
    )
    assert str(Remeasured({}, measured)) == "measured 2 ms (2 to 2, 1 times, eager)"


def test_tables_and_budgets_that_do_not_fit_are_refused():
    with pytest.raises(BudgetError, match="a budget that is a dict needs a CostTable to be read"):
        remeasure(NET, MUTATOR, ARCHITECTURES, LatencyRunner(board), X, table=TABLE, budget={"latency_ms": 3})
    with pytest.raises(CostError, match="no metric 'phone_ms'; .*'latency_ms'"):
        remeasure(NET, MUTATOR, ARCHITECTURES, LatencyRunner(board), X, table=COUNTED, metric="phone_ms")
    with pytest.raises(CostError, match="'macs' is counted, not measured"):
        remeasure(NET, MUTATOR, ARCHITECTURES, LatencyRunner(board), X, table=COUNTED, metric="macs")
