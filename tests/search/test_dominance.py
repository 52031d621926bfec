import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutorch.errors import ConfigError
from mutorch.search import crowding, front_ranks, hypervolume
from mutorch.search.dominance import dominates

POINTS = st.integers(1, 4).flatmap(
    lambda size: st.lists(st.tuples(*[st.integers(0, 4)] * size), min_size=1, max_size=9)
)


@given(POINTS)
def test_the_first_front_is_what_nothing_dominates_and_later_ones_what_only_earlier_ones_do(points):
    ranks = front_ranks(points)
    for point, rank in zip(points, ranks, strict=True):
        above = [r for other, r in zip(points, ranks, strict=True) if dominates(other, point)]
        assert rank == max(above, default=-1) + 1


@given(POINTS)
def test_the_hypervolume_is_the_number_of_unit_cubes_below_the_points(points):
    cells = itertools.product(range(4), repeat=len(points[0]))
    covered = sum(
        any(all(c < value for c, value in zip(cell, point, strict=True)) for point in points) for cell in cells
    )
    assert hypervolume(points, [0] * len(points[0])) == pytest.approx(covered)


def test_points_that_do_not_beat_the_reference_add_nothing():
    assert hypervolume([[3, 0.5], [2, 2]], (1, 1)) == 1.0
    assert hypervolume([[1, 1]], (1, 1)) == 0.0


def test_a_point_is_the_less_crowded_the_farther_its_neighbours_are():
    front = [[0, 10], [1, 9], [2, 8], [6, 4], [10, 0]]
    assert crowding(front).tolist() == pytest.approx([np.inf, 0.4, 1.0, 1.6, np.inf])
    assert crowding([[1, 1], [1, 1]]).tolist() == [np.inf, np.inf]


def test_points_and_reference_must_fit():
    with pytest.raises(ConfigError, match="the reference has 1 values, and there are 2 objectives"):
        hypervolume([[1, 2]], [0])
    with pytest.raises(ConfigError, match=r"points must be of shape \(points, objectives\), got \(2,\)"):
        front_ranks([1, 2])
