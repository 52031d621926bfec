"""A cost table that knows a measured latency: costs, budgets, searches, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mutorch.cost import METRICS, Budget, Costs, CostTable, LatencyTable
from mutorch.errors import BudgetError, CostError, InfeasibleBudgetError
from mutorch.models import chain_net
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator

COUNTED = CostTable.from_model(Mutator(chain_net()), torch.zeros(1, 1, 10, 10))
SPACE = COUNTED.space
ALL = list(SPACE.grid())
CODES = np.array([SPACE.encode(architecture) for architecture in ALL])


def board(architecture):
    return 1.0 + sum(
        2.0 * place + SPACE[name].index(choice) for place, (name, choice) in enumerate(architecture.items())
    )


def erratic(architecture):
    return 1.0 + math.prod(1 + SPACE[name].index(choice) for name, choice in architecture.items())


def table_of(device, **options):
    return LatencyTable.fit(SPACE, ALL, [device(a) for a in ALL], measured_on="board 1", **options)


TABLE = COUNTED.with_metric("latency_ms", table_of(board))
UNSURE = COUNTED.with_metric("latency_ms", table_of(erratic))


def test_a_metric_is_added_to_a_new_table_and_the_old_one_is_as_it_was():
    assert TABLE.metrics == (*METRICS, "latency_ms")
    assert COUNTED.metrics == METRICS
    assert TABLE(ALL[7])["latency_ms"] == board(ALL[7])
    assert TABLE(ALL[7]).macs == COUNTED(ALL[7]).macs


def test_ends_are_exact_as_those_of_counted_costs():
    times = [board(architecture) for architecture in ALL]
    assert TABLE.reachable("latency_ms") == (min(times), max(times))
    assert board(TABLE.cheapest("latency_ms")) == min(times)
    assert board(TABLE.largest("latency_ms")) == max(times)


@pytest.mark.parametrize(
    ("bound", "wanted"),
    [
        (20.0, lambda ms, largest: ms <= 20),
        ("75%", lambda ms, largest: ms <= 0.75 * largest),
        ((18, 20), lambda ms, largest: 18 <= ms <= 20),
        ((20, None), lambda ms, largest: ms >= 20),
    ],
)
def test_a_budget_bounds_it_like_any_other_metric(bound, wanted):
    budget = Budget.parse({"latency_ms": bound}, TABLE)
    largest = max(board(architecture) for architecture in ALL)
    expected = [wanted(board(architecture), largest) for architecture in ALL]
    assert budget.mask(TABLE, CODES).tolist() == expected
    assert [budget.allows(TABLE(architecture)) for architecture in ALL] == expected
    assert 0 < sum(expected) < len(ALL)


def test_it_is_bounded_together_with_what_is_counted():
    budget = Budget.parse({"latency_ms": "80%", "macs": "50%"}, TABLE)
    both = [
        Budget.parse({name: share}, TABLE).mask(TABLE, CODES)
        for name, share in (("latency_ms", "80%"), ("macs", "50%"))
    ]
    assert budget.mask(TABLE, CODES).tolist() == (both[0] & both[1]).tolist()


def test_several_machines_are_several_metrics():
    both = TABLE.with_metric("phone_ms", table_of(lambda a: 2 * board(a)))
    assert both(ALL[0]).measured == {"latency_ms": board(ALL[0]), "phone_ms": 2 * board(ALL[0])}


def test_what_cannot_be_reached_is_refused_with_where_it_was_measured():
    with pytest.raises(
        InfeasibleBudgetError, match="no architecture has latency_ms of at most 1: .*, predicted for board 1"
    ):
        Budget.parse({"latency_ms": 1.0}, TABLE)


def test_a_bound_on_what_was_not_measured_says_how_to_measure_it():
    with pytest.raises(
        BudgetError, match=r"no metric 'latency_ms'.*table\.with_metric\('latency_ms', mutorch\.latency_table"
    ):
        Budget.parse({"latency_ms": 5.0}, COUNTED)
    with pytest.raises(BudgetError, match="no metric 'latency_ms'"):
        Budget.parse(Budget({"latency_ms": (0.0, 5.0)}), COUNTED)


def test_predictions_that_are_worse_than_their_tolerance_bound_nothing():
    with pytest.raises(
        BudgetError,
        match=r"latency_ms cannot be bounded by its table: its predictions are off by .* and its tolerance is 10.0% for nine "
        r"of ten; measure more architectures \(num_samples\), allow more \(with_tolerance\), or .*mutorch.remeasure",
    ):
        Budget.parse({"latency_ms": "50%"}, UNSURE)
    with pytest.raises(BudgetError, match="cannot be bounded"):
        Budget.parse(Budget({"latency_ms": (0.0, 50.0)}), UNSURE)


def test_a_larger_tolerance_allows_the_bound():
    strict = table_of(lambda a: board(a) ** 2, tolerance=1e-6)
    with pytest.raises(BudgetError, match="cannot be bounded"):
        Budget.parse({"latency_ms": "50%"}, COUNTED.with_metric("latency_ms", strict))
    table = COUNTED.with_metric("latency_ms", strict.with_tolerance(0.5))
    assert Budget.parse({"latency_ms": "50%"}, table).bounds["latency_ms"][1] > 0


def test_a_table_that_predicts_less_than_nothing_bounds_nothing_whatever_its_tolerance():
    table = COUNTED.with_metric("latency_ms", table_of(erratic, tolerance=100.0))
    assert table.reachable("latency_ms")[0] < 0
    with pytest.raises(BudgetError, match="it predicts -.* for some architecture, which nothing takes; measure more"):
        Budget.parse({"latency_ms": "50%"}, table)


def test_predictions_that_are_refused_as_a_bound_are_still_shown():
    assert UNSURE(ALL[3])["latency_ms"] != 0


@pytest.mark.parametrize("metric", ["latency_ms", "latency", "lateny_ms"])
def test_costs_that_were_not_measured_are_an_error_and_never_zero(metric):
    with pytest.raises(CostError, match=f"'{metric}' is not among these costs"):
        COUNTED(ALL[0])[metric]
    with pytest.raises(CostError, match=f"no metric '{metric}'"):
        COUNTED.evaluate(CODES, metric)


def test_costs_are_equal_where_both_parts_are():
    assert Costs(1, 2, 3.0, 4.0) == Costs(1, 2, 3.0, 4.0)
    assert Costs(1, 2, 3.0, 4.0, {"latency_ms": 5.0}) != Costs(1, 2, 3.0, 4.0)
    assert len({Costs(1, 2, 3.0, 4.0), Costs(1, 2, 3.0, 4.0)}) == 1


def test_names_and_tables_that_do_not_fit_are_refused():
    with pytest.raises(CostError, match="a measured metric has a name of its own, such as 'latency_ms', got 'macs'"):
        COUNTED.with_metric("macs", table_of(board))
    with pytest.raises(CostError, match="latency_ms is given as a LatencyTable, got float"):
        COUNTED.with_metric("latency_ms", 3.0)
    other = nn.Sequential(OneShotMutableOP({"a": nn.Linear(1, 1), "b": nn.Identity()}))
    with pytest.raises(CostError, match="the table of latency_ms is of another space"):
        CostTable.from_model(Mutator(other), torch.zeros(1, 1)).with_metric("latency_ms", table_of(board))
