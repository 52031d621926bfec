"""Amounts compute like integers at every choice."""

import itertools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost.amount import Amount
from mutorch.errors import CostError

COUNTS = (2, 3, 2)


@st.composite
def amounts(draw):
    keys = st.lists(st.integers(0, 2), max_size=2, unique=True).map(lambda key: tuple(sorted(key)))
    terms = {}
    for key in draw(st.lists(keys, max_size=3, unique=True)):
        shape = [COUNTS[number] for number in key]
        values = draw(st.lists(st.integers(-3, 9), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        terms[key] = np.array(values).reshape(shape)
    return Amount(terms)


def values(amount):
    """The number at every choice."""
    found = []
    for codes in itertools.product(*map(range, COUNTS)):
        constant = Amount.of(amount).at(dict(enumerate(codes)))
        assert set(constant.terms) <= {()}
        found.append(int(constant.terms.get((), 0)))
    return found


@given(amounts(), amounts(), st.integers(-4, 4))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_sums_and_products_are_those_of_the_numbers(one, other, number):
    for compute in (operator.add, operator.mul, operator.sub):
        assert values(compute(one, other)) == [compute(a, b) for a, b in zip(values(one), values(other), strict=True)]
        assert values(compute(one, number)) == [compute(a, number) for a in values(one)]
        assert values(compute(number, one)) == [compute(number, a) for a in values(one)]
    assert (one == other) == (values(one) == values(other))
    assert (one == number) == (values(one) == [number] * len(values(one)))
    assert one * other == other * one
    assert one + other - other == one


@given(amounts(), st.integers(1, 4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_divisions_are_those_of_the_numbers(one, number):
    assert values(one // number) == [a // number for a in values(one)]
    assert values(one % number) == [a % number for a in values(one)]


def test_equal_sums_of_different_tables_are_equal():
    rows, columns = Amount({(0,): [1, 2]}), Amount({(1,): [10, 20, 30]})
    together = Amount({(0, 1): [[11, 21, 31], [12, 22, 32]]})
    assert together == rows + columns
    assert together != rows + columns + 1


def test_a_comparison_has_an_answer_where_it_is_the_same_everywhere():
    width = Amount({(0,): [8, 16]})
    assert width < 17
    assert width <= 2 * width
    assert not width > 16
    with pytest.raises(CostError, match="compares two sizes, and the answer depends on the widths"):
        bool(width < 10)


def test_a_table_that_would_be_too_large_is_refused():
    one, two, three, four = (Amount({(number,): np.arange(50)}) for number in range(4))
    with pytest.raises(CostError, match="entries would be needed: 4 decisions act on each other"):
        one * two * three * four
