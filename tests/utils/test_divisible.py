import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutorch.errors import ConfigError
from mutorch.utils import make_divisible


@pytest.mark.parametrize(
    ("value", "divisor", "expected"),
    [
        (20, 8, 24),
        (34, 8, 32),
        (10, 8, 16),
        (39, 8, 40),
        (0, 1, 1),
        (3, 8, 8),
        (15, 8, 16),
        (15, 3, 15),
        (17, 3, 18),
    ],
)
def test_make_divisible_rounds_to_the_nearest_multiple(value, divisor, expected):
    assert make_divisible(value, divisor) == expected


@given(st.integers(0, 5000), st.integers(1, 64))
def test_make_divisible_is_a_near_multiple_that_keeps_nine_tenths(value, divisor):
    result = make_divisible(value, divisor)
    assert result % divisor == 0
    assert abs(result - value) <= divisor
    assert result >= 0.9 * value


def test_min_value_below_the_divisor_is_raised_with_a_warning():
    with pytest.warns(UserWarning, match="min_value 1 is below the divisor 8; using 8"):
        assert make_divisible(14.4, 8, min_value=1) == 16


def test_min_value_is_the_least_result_even_if_not_a_multiple():
    assert make_divisible(3, 8, min_value=12) == 12


def test_min_ratio_decides_whether_rounding_down_is_allowed():
    assert make_divisible(10, 8, min_ratio=0.5) == 8


def test_divisor_zero_is_refused():
    with pytest.raises(ConfigError, match="divisor must be 1 or more, got 0"):
        make_divisible(8, 0)
