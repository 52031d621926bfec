import math

import numpy as np
import pytest
from factor_spaces import all_codes, budgets, cost_table, cost_tables
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost import Budget
from mutorch.search.region import Region
from mutorch.space import Decision, Ref, SearchSpace


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_what_is_listed_is_within_and_obeys(data):
    table = data.draw(cost_tables())
    region = Region(table.space, table, Budget.parse(data.draw(budgets(table)), table))
    codes = all_codes(region.counts)
    within = codes[region.within(codes)]
    assert sorted(region.listed(10_000).tolist()) == within.tolist()
    slopes = [data.draw(st.floats(0, 1e3)) * (1 if term.high < math.inf else -1) for term in region.terms]
    assert sorted(region.listed(10_000, np.array(slopes)).tolist()) == within.tolist()


@pytest.mark.parametrize("metric", ["macs", "params", "size_mb", "act_mem_mb"])
def test_a_bound_at_a_value_includes_exactly_the_architectures_with_it(metric):
    table = cost_table(SearchSpace([Decision(f"d{n}", (0, 1, 2)) for n in range(5)]), seed=3)
    codes = all_codes((3,) * 5)
    values = table.evaluate(codes, metric)
    for value in np.unique(values)[::7].tolist():
        region = Region(table.space, table, Budget.parse({metric: (value, value)}, table))
        assert (region.within(codes) == (values == value)).all()


def test_constraints_that_are_neither_tabled_nor_sums_are_looked_at_one_by_one():
    decisions = [Decision(f"d{n}", (1, 2, 3, 4)) for n in range(10)]
    product = Ref("d0") * Ref("d1") / Ref("d2")
    for decision in decisions[3:]:
        product = product + Ref(decision.name)
    space = SearchSpace(decisions, [product <= 12])
    region = Region(space)
    codes = region.random(np.random.default_rng(0), 200)
    assert not region.is_whole
    assert not region.terms
    assert region.within(codes)[:64].all()
    assert region.within(codes).tolist() == [space.decode(row) in space for row in codes.tolist()]


def test_without_budget_and_constraints_everything_is_within():
    region = Region(SearchSpace([Decision("a", (1, 2))]))
    assert region.is_everything
    assert region.within(all_codes((2,))).all()
    assert len(region.listed(2)) == 2
