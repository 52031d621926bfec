import math

import numpy as np
import pytest
from factor_spaces import all_codes, budgets, cost_table, cost_tables, sum_table
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost import Budget
from mutorch.cost.factors import Factors
from mutorch.errors import BudgetError, ConfigError, InfeasibleBudgetError
from mutorch.search import profile
from mutorch.space import Decision, Ref, SearchSpace


@given(st.data())
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_share_is_that_of_all_architectures(data):
    table = data.draw(cost_tables())
    spec = data.draw(budgets(table, most=3))
    codes = np.array([table.space.encode(architecture) for architecture in table.space.grid()])
    feasible = Budget.parse(spec, table).mask(table, codes).mean()
    found = profile(table, spec)
    assert found.share == pytest.approx(feasible, rel=5 * found.error + 1e-9)


@pytest.mark.parametrize("most", [40, 20, 5, 2])
def test_a_share_of_one_in_billions_is_estimated(most):
    wanted = np.polynomial.polynomial.polypow([1, 1, 1], 60)[: most + 1].sum() / 3.0**60
    found = profile(sum_table(), {"params": most})
    assert found.share == pytest.approx(wanted, rel=5 * found.error + 1e-9)
    assert found.error < 0.1


def test_a_few_feasible_ones_of_a_huge_space_are_counted():
    found = profile(sum_table(), {"params": 2})
    assert found.error == 0
    assert found.share * 3.0**60 == pytest.approx(1 + 60 + 60 + 60 * 59 / 2)


def test_a_small_space_is_counted():
    table = cost_table(SearchSpace([Decision(f"d{n}", (0, 1, 2)) for n in range(5)]))
    values = table.evaluate(all_codes((3,) * 5), "macs")
    found = profile(table, {"macs": float(np.median(values))})
    assert (found.share, found.error) == (pytest.approx((values <= np.median(values)).mean()), 0.0)


def test_quartiles_and_ends_are_those_of_the_space():
    table = cost_table(SearchSpace([Decision(f"d{n}", (0, 1, 2)) for n in range(8)]), seed=1)
    values = table.evaluate(all_codes((3,) * 8), "params")
    smallest, quarter, median, most, largest = profile(table, samples=20_000).metrics["params"]
    assert (smallest, largest) == (values.min(), values.max())
    spread = largest - smallest
    assert [quarter, median, most] == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]), abs=0.02 * spread)


def test_without_a_budget_everything_is_feasible_and_nothing_is_said_of_it():
    found = profile(sum_table())
    assert (found.share, found.error) == (1.0, 0.0)
    assert "feasible" not in str(found)


def test_the_table_names_metrics_and_the_share():
    text = str(profile(sum_table(), {"params": 20}))
    assert text.splitlines()[0].split() == ["smallest", "25%", "median", "75%", "largest"]
    assert [line.split()[0] for line in text.splitlines()[1:5]] == ["macs", "params", "act_mem_mb", "size_mb"]
    assert text.splitlines()[-1].startswith("feasible within params <= 20: ")
    assert "give or take" in text


def test_bounds_that_contradict_each_other_have_no_share():
    found = profile(sum_table(), {"params": (None, 50), "size_mb": (70e-6, None)})
    assert (found.share, found.error) == (0.0, 0.0)
    assert str(found).endswith(": none")


def test_the_share_is_that_of_what_obeys_the_constraints():
    decisions = [Decision(f"d{n}", (0, 1, 2)) for n in range(40)]
    total = sum((Ref(d.name) for d in decisions[1:]), Ref("d0"))
    space = SearchSpace(decisions, [total <= 10])
    table = cost_table(space, params=Factors((3,) * 40, {(n,): np.arange(3) for n in range(40)}))
    ways = np.polynomial.polynomial.polypow([1, 1, 1], 40)
    found = profile(table, {"params": 6})
    assert found.share == pytest.approx(ways[:7].sum() / ways[:11].sum(), rel=5 * found.error)


def test_equal_seeds_give_equal_profiles():
    assert profile(sum_table(), {"params": 20}, seed=1) == profile(sum_table(), {"params": 20}, seed=1)
    assert profile(sum_table(), {"params": 20}, seed=1) != profile(sum_table(), {"params": 20}, seed=2)


def test_what_cannot_be_profiled_is_refused():
    with pytest.raises(InfeasibleBudgetError, match="no architecture has params of at least 121"):
        profile(sum_table(), {"params": (121, None)})
    with pytest.raises(BudgetError, match="no metric 'parms'"):
        profile(sum_table(), {"parms": 3})
    with pytest.raises(ConfigError, match="at least one sample, got 0"):
        profile(sum_table(), samples=0)
    assert math.isfinite(profile(sum_table(), samples=1).metrics["macs"][1])
