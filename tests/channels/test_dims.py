import numpy as np
import pytest

from mutorch.channels.atoms import ANYTHING, Atoms
from mutorch.channels.dims import DimAlgebra, LabelMismatchError


@pytest.fixture
def algebra():
    return DimAlgebra(Atoms())


def checker(algebra):
    return DimAlgebra(algebra.atoms, checking=True)


def same(algebra, one, other):
    left, right = algebra.resolve(one), algebra.resolve(other)
    return len(left) == len(right) and all(map(np.array_equal, left, right))


def cut(dim, *positions):
    return tuple(component[list(positions)] for component in dim)


def test_a_dimension_of_size_one_cannot_be_cut(algebra):
    assert algebra.fresh(1) == ()
    assert algebra.free(algebra.fresh(2))


def test_unified_dimensions_have_the_same_labels(algebra):
    one, other = algebra.fresh(4), algebra.fresh(4)
    algebra.unify(one, other, "a test")
    assert same(algebra, one, other)


def test_what_meets_a_constant_is_frozen_and_says_so(algebra):
    one = algebra.fresh(4)
    algebra.unify(one, (), "a sum")
    assert not algebra.free(one)
    assert algebra.atoms.reason(one[0]) == "tied to what is constant, by a sum"


def test_merging_two_dimensions_keeps_rows_and_columns(algebra):
    rows, columns = algebra.fresh(2), algebra.fresh(3)
    merged = algebra.merge([rows, columns], [2, 3])
    assert [component.tolist() for component in merged] == [rows[0].repeat(3).tolist(), np.tile(columns[0], 2).tolist()]


def test_splitting_what_was_merged_gives_it_back(algebra):
    rows, columns = algebra.fresh(2), algebra.fresh(3)
    one, other = algebra.split(algebra.merge([rows, columns], [2, 3]), [2, 3], "a view")
    assert same(algebra, one, rows)
    assert same(algebra, other, columns)


def test_splitting_free_channels_makes_them_rows_times_columns(algebra):
    whole = algebra.fresh(6)
    rows, columns = algebra.split(whole, [2, 3], "a view")
    assert len(algebra.atoms_of(rows)) == 2
    assert len(algebra.atoms_of(columns)) == 3
    assert same(algebra, whole, algebra.merge([rows, columns], [2, 3]))


def test_three_parts_of_a_fused_projection_are_rows(algebra):
    whole = algebra.fresh(24)
    parts, heads, places = algebra.split(whole, [3, 2, 4], "a view")
    assert [len(algebra.atoms_of(dim)) for dim in (parts, heads, places)] == [3, 2, 4]


def test_rectangles_of_two_proportions_leave_what_is_a_rectangle_in_both(algebra):
    whole = algebra.fresh(12)
    algebra.split(whole, [3, 4], "a view")
    algebra.split(whole, [2, 6], "another view")
    (left,) = [component for component in algebra.resolve(whole) if (component != component[0]).any()]
    assert np.array_equal(left, np.tile(left[:2], 6))  # every second position


def test_rectangles_that_have_no_common_part_can_only_go_as_a_whole(algebra):
    whole = algebra.fresh(6)
    algebra.split(whole, [2, 3], "a view")
    algebra.split(whole, [3, 2], "another view")
    assert all((component == component[0]).all() for component in algebra.resolve(whole))


def test_a_view_that_moves_sizes_of_one_keeps_labels(algebra):
    rows, columns = algebra.fresh(2), algebra.fresh(3)
    labels = algebra.reshape((rows, columns), [2, 3], [1, 2, 1, 3], "a view")
    assert labels == ((), rows, (), columns)


@pytest.mark.parametrize(
    ("shape", "new_shape"), [([2, 6], [2, 2, 3]), ([2, 6], [12]), ([2, 6], [4, 3]), ([0, 6], [0, 6])]
)
def test_views_give_as_many_dimensions_as_they_have_sizes(algebra, shape, new_shape):
    labels = algebra.reshape(((), algebra.fresh(6)), shape, new_shape, "a view")
    assert [len(dim[0]) for dim in labels if dim] == [size for size, dim in zip(new_shape, labels, strict=True) if dim]


def test_counts_of_the_same_channels_in_another_order_are_tied_already(algebra):
    rows, columns = algebra.fresh(2), algebra.fresh(3)
    algebra.tie_counts(algebra.merge([rows, columns], [2, 3]), algebra.merge([columns, rows], [3, 2]), "a shuffle")
    assert len(algebra.atoms_of(rows)) == 2
    assert len(algebra.atoms_of(columns)) == 3


def test_counts_of_other_channels_are_tied_by_keeping_the_same(algebra):
    one, other = algebra.fresh(4), algebra.fresh(4)
    algebra.tie_counts(one, other, "a size")
    assert same(algebra, one, other)


# ---- checking ----------------------------------------------------------------------------------------------------------


def test_checking_learns_nothing(algebra):
    one, check = algebra.fresh(4), checker(algebra)
    check.freeze(one, "a test")
    assert algebra.free(one)
    assert check.fresh(4) == ()


def test_checking_finds_channels_that_do_not_belong_together(algebra):
    one, other = algebra.fresh(4), algebra.fresh(4)
    with pytest.raises(LabelMismatchError, match="a sum: channels meet that do not belong together") as caught:
        checker(algebra).unify(one, other, "a sum")
    assert set(caught.value.atoms.tolist()) == {*one[0].tolist(), *other[0].tolist()}


def test_checking_finds_other_channels_of_one_group(algebra):
    one = algebra.fresh(4)
    with pytest.raises(LabelMismatchError):
        checker(algebra).unify(cut(one, 0, 1), cut(one, 0, 2), "a sum")


def test_checking_finds_a_channel_that_meets_a_constant(algebra):
    with pytest.raises(LabelMismatchError):
        checker(algebra).unify(algebra.fresh(4), (), "a sum")


def test_what_is_the_same_everywhere_agrees_with_any_channels(algebra):
    one = algebra.fresh(4)
    anything = (np.full(4, ANYTHING),)
    assert checker(algebra).unify(anything, one, "a sum") == one
    assert checker(algebra).unify(one, anything, "a sum") == one


def test_one_row_that_is_left_of_a_rectangle_agrees_with_its_columns(algebra):
    rows, columns = algebra.fresh(2), algebra.fresh(3)
    left = cut(algebra.merge([rows, columns], [2, 3]), 0, 1, 2)
    check = checker(algebra)
    assert check.unify(left, columns, "a product") == left


def test_checking_finds_what_is_left_to_be_no_rectangle(algebra):
    rows, columns = algebra.fresh(2), algebra.fresh(3)
    left = cut(algebra.merge([rows, columns], [2, 3]), 0, 1, 3, 5)
    with pytest.raises(LabelMismatchError, match="no rectangle"):
        checker(algebra).split(left, [2, 2], "a view")
