import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost.factors import Factors


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
