import itertools
import math

import numpy as np
import pytest
from factor_spaces import all_codes, budgets, cost_tables, deviation, sum_table
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost import Budget
from mutorch.cost.factors import Factors
from mutorch.search.region import Region
from mutorch.search.tilted import Tilted
from mutorch.space import Decision, Ref, SearchSpace

SAMPLES = 20_000


def region_of(table, spec=None):
    return Region(table.space, table, Budget.parse(spec, table))


@given(st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_proposals_are_uniform_over_exactly_what_is_feasible(data):
    table = data.draw(cost_tables())
    spec = data.draw(budgets(table))
    region = region_of(table, spec)
    codes = all_codes(region.counts)
    obeys = np.array([not table.space.broken(table.space.decode(row)) for row in codes.tolist()])
    feasible = obeys & Budget.parse(spec, table).mask(table, codes)
    assert (region.within(codes) == feasible).all()
    tilted = Tilted(region)
    proposed = tilted.propose(np.random.default_rng(0), SAMPLES)
    assert region.within(proposed).all()
    if not feasible.any():
        assert tilted.log_count == -math.inf
        return
    assert not tilted.is_impossible
    assert tilted.log_bound >= math.log(feasible.sum()) - 1e-6
    assert len(proposed) > SAMPLES / 200
    assert deviation(proposed, region.counts, feasible / feasible.sum()) < 5
    count = len(proposed) / SAMPLES * math.exp(tilted.log_bound)
    assert count == pytest.approx(feasible.sum(), rel=5 / math.sqrt(len(proposed)))


@pytest.mark.parametrize("most", [58, 30, 10, 3, 0])
def test_the_share_of_the_rarest_is_estimated_from_some_thousand_proposals(most):
    table = sum_table(60, 3)
    ways = np.polynomial.polynomial.polypow([1, 1, 1], 60)  # how many architectures have each sum
    tilted = Tilted(region_of(table, {"flops": most}))
    assert tilted.rate > 0.04
    assert math.exp(tilted.log_count) == pytest.approx(ways[: most + 1].sum(), rel=0.3)


@pytest.mark.parametrize("spec", [{"flops": (30, 30)}, {"flops": (118, None)}, {"flops": (90, 92), "params": "95%"}])
def test_lower_bounds_and_narrow_windows_are_met_by_many_proposals(spec):
    tilted = Tilted(region_of(sum_table(60, 3), spec))
    assert tilted.rate > 0.03
    assert len(tilted.propose(np.random.default_rng(0), 1000)) > 10


def test_bounds_that_contradict_each_other_are_proven_to():
    assert Tilted(region_of(sum_table(60, 3), {"flops": (None, 59), "params": (61, None)})).is_impossible
    assert not Tilted(region_of(sum_table(60, 3), {"flops": (None, 60), "params": (60, None)})).is_impossible


def test_where_all_widths_act_on_each_other_draws_are_uniform_all_the_same():
    random = np.random.default_rng(0)
    area = np.outer(np.arange(1, 5), np.arange(1, 5))
    tables = {key: area * random.integers(1, 9) for key in itertools.combinations(range(40), 2)}
    table = sum_table(40, 4, flops=Factors((4,) * 40, tables))
    codes = random.integers(0, 4, size=(100_000, 40))
    values = table.evaluate(codes, "flops")
    high = float(np.quantile(values, 0.01))
    tilted = Tilted(region_of(table, {"flops": high}))
    assert not tilted._gibbs.is_exact
    assert tilted.rate > 0.02
    assert math.exp(tilted.log_count - 40 * math.log(4)) == pytest.approx(0.01, rel=0.2)
    # The rarest come with the others in proportion, as they do in random ones.
    drawn = table.evaluate(tilted.propose(random, 60_000), "flops")
    tried = values[values <= high]
    for quantile in (0.1, 0.5, 0.9):
        assert (drawn <= np.quantile(tried, quantile)).mean() == pytest.approx(quantile, abs=0.05)


def test_constraints_that_are_sums_are_tilted_as_a_budget_is():
    decisions = [Decision(f"d{n}", (1, 2, 3, 4)) for n in range(30)]
    total = sum((Ref(d.name) for d in decisions[1:]), Ref("d0"))
    region = Region(SearchSpace(decisions, [total <= 45]))
    assert region.is_whole
    ways = np.polynomial.polynomial.polypow([1, 1, 1, 1], 30)[: 45 - 30 + 1].sum()
    tilted = Tilted(region)
    assert math.exp(tilted.log_count) == pytest.approx(ways, rel=0.2)
    assert (tilted.propose(np.random.default_rng(0), 1000) + 1).sum(axis=1).max() <= 45


def test_equal_generators_give_equal_proposals():
    first, second = (
        Tilted(region_of(sum_table(20, 3), {"flops": 5})).propose(np.random.default_rng(3), 100) for _ in "ab"
    )
    assert (first == second).all()
