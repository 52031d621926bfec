import numpy as np
import pytest
from factor_spaces import all_codes

from mutorch.cost.sums import as_sum
from mutorch.space import Decision, Ref, SearchSpace

A, B, C = Ref("a"), Ref("b"), Ref("c")
SPACE = SearchSpace([Decision("a", (1, 2, 3)), Decision("b", (-2, 0, 4)), Decision("c", (0, 1, 5))])


@pytest.mark.parametrize(
    "constraint",
    [A + B <= C, A * B - 2 * C < 3, A > B, -A >= B - 3, A <= 2, (A + B).eq(C), (A + B) * (B - C) <= A * 2 + 1],
    ids=str,
)
def test_bounds_on_the_sum_hold_exactly_where_the_constraint_does(constraint):
    factors, low, high = as_sum(constraint, SPACE)
    codes = all_codes((3, 3, 3))
    values = factors.evaluate(codes)
    holds = [bool(constraint.evaluate(SPACE.decode(row))) for row in codes.tolist()]
    assert ((values >= low) & (values <= high)).tolist() == holds


@pytest.mark.parametrize(
    "constraint", [A.ne(B), (A <= B) & (B <= C), A / 2 <= B, A <= 2.5, A.isin([1, 2]), A + A.eq(B) <= 3], ids=str
)
def test_other_constraints_are_no_sums(constraint):
    assert as_sum(constraint, SPACE) is None


@pytest.mark.parametrize("choices", [(0.5, 1), (False, True), ("1", "2")])
def test_choices_that_are_no_integers_make_no_sum(choices):
    assert as_sum(Ref("x") <= 1, SearchSpace([Decision("x", choices)])) is None


def test_a_decision_that_may_be_hidden_makes_no_sum():
    space = SearchSpace([Decision("op", ("conv", "skip")), Decision("depth", (1, 2), when=(("op", "conv"),))])
    assert as_sum(Ref("depth") <= 1, space) is None


def test_a_product_of_too_many_decisions_makes_no_sum():
    space = SearchSpace([Decision(f"d{n}", tuple(range(20))) for n in range(12)])
    product = Ref("d0")
    for n in range(1, 12):
        product = product * Ref(f"d{n}")
    assert as_sum(product <= 5, space) is None


def test_codes_of_the_sum_are_those_of_the_space():
    factors, _, high = as_sum(A + C <= 4, SPACE)
    assert np.array(factors.evaluate([[0, 2, 1], [2, 0, 2]])).tolist() == [1 + 1 - 4, 3 + 5 - 4]
    assert high == 0
