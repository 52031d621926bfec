import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost import Budget, CostTable
from mutorch.errors import BudgetError, InfeasibleBudgetError
from mutorch.models import chain_net
from mutorch.mutators import Mutator

TABLE = CostTable.from_model(Mutator(chain_net()), torch.zeros(1, 1, 10, 10))
SMALLEST, LARGEST = TABLE.reachable("macs")
ALL = np.array([TABLE.space.encode(architecture) for architecture in TABLE.space.grid()])


@pytest.mark.parametrize(
    ("bound", "low", "high"),
    [
        (100_000, -math.inf, 100_000),
        (1e5, -math.inf, 100_000),
        (np.int64(100_000), -math.inf, 100_000),
        ("100000", -math.inf, 100_000),
        ("100k", -math.inf, 100_000),
        (" 0.1 M ", -math.inf, 100_000),
        ("1e5", -math.inf, 100_000),
        ("0.0001G", -math.inf, 100_000),
        ("50%", -math.inf, LARGEST / 2),
        ("100%", -math.inf, LARGEST),
        (("20%", "90%"), 0.2 * LARGEST, 0.9 * LARGEST),
        ((None, "100k"), -math.inf, 100_000),
        (["100k", None], 100_000, math.inf),
        ((100_000, 100_000), 100_000, 100_000),
    ],
)
def test_bounds_are_read_in_the_users_units(bound, low, high):
    assert Budget.parse({"macs": bound}, TABLE).bounds["macs"] == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"mac": 1},
            "no metric 'mac'; did you mean 'macs'\\? allowed: 'macs', 'flops', 'params', 'act_mem_mb', 'size_mb'",
        ),
        (
            {"latency_ms": 3},
            "no metric 'latency_ms'.*; latency is measured, not counted: .*with_metric.*mutorch.latency_table",
        ),
        ({"macs": "300 MB"}, 'budget of macs: cannot read \'300 MB\'; write a number, "300M", "50%", or a pair'),
        ({"macs": "a lot"}, "cannot read 'a lot'"),
        ({"macs": "-3"}, "cannot read '-3'"),
        ({"macs": "1.2.3M"}, "'1.2.3M' is no number"),
        ({"macs": "5M%"}, "'5M%' is both an amount and a share; write 5M or 5%"),
        ({"macs": math.nan}, "cannot read nan"),
        ({"macs": True}, "cannot read True"),
        ({"macs": (1, 2, 3)}, "cannot read \\(1, 2, 3\\)"),
        ({"macs": ("100k", "50k")}, "the lower bound '100k' is above the upper bound '50k'"),
        ("300M", "a budget is a dict such as .*, got str"),
    ],
)
def test_budgets_that_cannot_be_read_say_why(spec, message):
    with pytest.raises(BudgetError, match=message) as error:
        Budget.parse(spec, TABLE)
    assert not isinstance(error.value, InfeasibleBudgetError)


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (1000, f"no architecture has macs of at most 1k: the space reaches from {SMALLEST / 1000:.4g}k to"),
        (
            (LARGEST + 1, None),
            f"no architecture has macs of at least .* to {LARGEST / 1000:.4g}k, counted for the example",
        ),
        ((None, SMALLEST - 1), "at most"),
    ],
)
def test_bounds_out_of_reach_are_refused_with_what_is_reachable(bound, message):
    with pytest.raises(InfeasibleBudgetError, match=message):
        Budget.parse({"macs": bound}, TABLE)


@pytest.mark.parametrize("bound", [(None, SMALLEST), (LARGEST, None)])
def test_bounds_include_their_ends(bound):
    assert Budget.parse({"macs": bound}, TABLE).mask(TABLE, ALL).sum() >= 1


@given(
    st.dictionaries(
        st.sampled_from(["macs", "flops", "params", "size_mb", "act_mem_mb"]),
        st.tuples(st.integers(0, 40), st.integers(60, 100)),
        min_size=1,
    )
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_one_architecture_and_many_are_judged_alike(percent):
    bounds = {metric: (f"{low}%", f"{high}%") for metric, (low, high) in percent.items()}
    budget = Budget.parse(bounds, TABLE)
    mask, excess = budget.mask(TABLE, ALL), budget.excess(TABLE, ALL)
    assert mask.tolist() == [budget.allows(TABLE(TABLE.space.decode(codes))) for codes in ALL]
    assert mask.tolist() == (excess == 0).tolist()


def test_no_budget_allows_everything():
    for spec in (None, {}):
        budget = Budget.parse(spec, TABLE)
        assert budget.mask(TABLE, ALL).all()
        assert str(budget) == "none"


def test_a_budget_is_shown_and_logged_in_plain_numbers():
    budget = Budget.parse({"macs": ("50k", "100k"), "params": (None, 4000)}, TABLE)
    assert str(budget) == "50k <= macs <= 100k, params <= 4k"
    assert budget.to_dict() == {"macs": [50_000.0, 100_000.0], "params": [None, 4000.0]}
    assert Budget.parse(budget, TABLE) is budget
