import itertools

import numpy as np
from factor_spaces import all_codes, random_factors
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost.factors import Factors
from mutorch.cost.listing import listed


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.integers(0, 10**6),
    st.integers(-150, 150),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_exactly_the_codes_within_all_bounds_are_listed(counts, seed, high, number):
    bounds = [(random_factors(counts, [seed, n]), high) for n in range(number)]
    codes = all_codes(counts)
    within = np.logical_and.reduce([factors.evaluate(codes) <= most for factors, most in bounds])
    found = listed(counts, bounds, limit=5000)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, codes[within].tolist()))


def test_a_few_of_a_huge_space_are_listed():
    ones = Factors((3,) * 60, {(number,): np.arange(3) for number in range(60)})
    assert len(listed(ones.counts, [(ones, 1)], limit=100)) == 61
    assert len(listed(ones.counts, [(ones, 2)], limit=2000)) == 1 + 60 + 60 + 60 * 59 // 2


def test_a_few_are_listed_where_too_many_decisions_act_on_each_other_for_an_exact_elimination():
    width = np.arange(1, 5)
    tables = {(a, b): np.outer(width, width) for a, b in itertools.combinations(range(30), 2)}
    area = Factors((4,) * 30, tables)
    assert len(listed(area.counts, [(area, 435 + 29)], limit=10_000)) == 31


def test_more_than_the_limit_are_not_listed():
    ones = Factors((3,) * 60, {(number,): np.arange(3) for number in range(60)})
    assert listed(ones.counts, [(ones, 2)], limit=1000) is None
    assert listed((2,) * 30, [], limit=1000) is None


def test_a_bound_below_the_minimum_lists_nothing():
    ones = Factors((3,) * 60, {(number,): np.arange(1, 4) for number in range(60)})
    assert listed(ones.counts, [(ones, 59)], limit=1).shape == (0, 60)
