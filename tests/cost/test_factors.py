import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost.factors import Factors, merged
from mutorch.errors import CostError


@st.composite
def functions(draw):
    """Sums of small tables over random decisions, with negative entries and ties."""
    counts = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=6)))
    keys = st.lists(st.integers(0, len(counts) - 1), max_size=3, unique=True).map(lambda key: tuple(sorted(key)))
    tables = {}
    for key in draw(st.lists(keys, max_size=6, unique=True)):
        shape = [counts[decision] for decision in key]
        entries = st.integers(-5, 5)
        values = draw(st.lists(entries, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        tables[key] = np.array(values, dtype=np.int64).reshape(shape)
    return Factors(counts, tables)


def by_hand(factors, codes):
    return sum(int(table[tuple(codes[decision] for decision in key)]) for key, table in factors.tables.items())


@given(functions())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_values_minimum_and_maximum_equal_those_of_all_codes(factors):
    everything = list(itertools.product(*(range(count) for count in factors.counts)))
    values = [by_hand(factors, codes) for codes in everything]
    assert factors.evaluate(np.array(everything)).tolist() == values
    assert by_hand(factors, factors.minimum()) == min(values)
    assert by_hand(factors, factors.negated().minimum()) == max(values)


def test_values_beyond_32_bits_are_exact():
    factors = Factors((2,), {(): np.int64(2**53), (0,): np.array([0, 1], dtype=np.int64)})
    assert factors.evaluate(np.array([[0], [1]], dtype=np.int8)).tolist() == [2**53, 2**53 + 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
def test_small_integer_codes_do_not_overflow(dtype):
    table = np.arange(20 * 20, dtype=np.int64).reshape(20, 20)
    assert Factors((20, 20), {(0, 1): table}).evaluate(np.array([[19, 19]], dtype=dtype)).tolist() == [399]


def test_the_minimum_of_a_long_chain_is_exact_and_cheap():
    # 3^60 codes; neighbours disagree at a price, and only the ends know what they want.
    pull = np.array([[0, 2, 2], [2, 0, 2], [2, 2, 0]], dtype=np.int64)
    tables = {(number, number + 1): pull for number in range(59)}
    tables |= {(0,): np.array([0, 9, 9], dtype=np.int64), (59,): np.array([9, 9, 0], dtype=np.int64)}
    factors = Factors((3,) * 60, tables)
    codes = factors.minimum()
    assert (codes[0], codes[-1], by_hand(factors, codes)) == (0, 2, 2)


def test_the_ends_of_widths_that_all_act_on_each_other_are_found_by_dominance():
    # 40 decisions, each with a table with every other one: nothing to eliminate, but narrower is cheaper everywhere.
    width = np.arange(1, 5, dtype=np.int64)
    tables = {(a, b): np.outer(width, width) for a, b in itertools.combinations(range(40), 2)}
    factors = Factors((4,) * 40, tables)
    assert factors.minimum() == [0] * 40
    assert factors.negated().minimum() == [3] * 40


def test_what_is_not_dominated_is_eliminated_after_what_is():
    width = np.arange(1, 5, dtype=np.int64)
    tables = {(a, b): np.outer(width, width) for a, b in itertools.combinations(range(20), 2)}
    tables |= {(0, 20): np.array([[3, 0, 5]] * 4), (20, 21): np.array([[0, 9], [9, 7], [1, 1]])}
    factors = Factors((4,) * 20 + (3, 2), tables)
    assert factors.minimum() == [0] * 20 + [0, 0]
    assert by_hand(factors, factors.minimum()) == 190 + 3


def test_too_many_decisions_that_act_on_each_other_are_refused():
    random = np.random.default_rng(0)
    tables = {(a, b): random.integers(0, 99, size=(4, 4)) for a, b in itertools.combinations(range(40), 2)}
    with pytest.raises(CostError, match="too many of them act on each other, and not as widths do"):
        Factors((4,) * 40, tables).minimum()


@pytest.mark.parametrize("code", [-1, 2])
def test_codes_that_no_choice_has_are_refused(code):
    factors = Factors((2, 2), {(0, 1): np.arange(4).reshape(2, 2)})
    with pytest.raises(CostError, match=r"codes of decisions with \[2, 2\] choices must be from 0 to below that"):
        factors.evaluate(np.array([[0, code]]))


@given(functions(), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_merged_tables_give_the_same_values(factors, seed):
    codes = np.random.default_rng(seed).integers(0, factors.counts, size=(40, len(factors.counts)), dtype=np.uint8)
    together = Factors(factors.counts, dict(merged(factors.tables, factors.counts)))
    assert [by_hand(together, row) for row in codes] == [by_hand(factors, row) for row in codes]
