import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutorch.utils import IndexDict, RangeError, parse_values

spans = st.tuples(st.integers(-20, 20), st.integers(1, 8)).map(lambda p: (p[0], p[0] + p[1]))


def test_parse_values_includes_both_ends():
    assert parse_values([[1, 3, 1], [16, 24, 8], [3, 7, 2]]) == [[1, 2, 3], [16, 24], [3, 5, 7]]


@pytest.mark.parametrize("item", [[1, 3], [1, 3, 1, 1], [1.0, 3, 1]])
def test_parse_values_wants_three_ints(item):
    with pytest.raises(AssertionError, match="three ints; got"):
        parse_values([item])


@pytest.mark.parametrize("item", [[3, 1, 1], [1, 3, 0], [3, 1, -1]])
def test_parse_values_refuses_a_range_without_candidates(item):
    with pytest.raises(RangeError, match="needs min <= max and step >= 1"):
        parse_values([item])


def test_index_dict_of_the_guide():
    d = IndexDict()
    d[4, 5] = 2
    d[1, 3] = 1
    assert list(d.items()) == [((1, 3), 1), ((4, 5), 2)]
    with pytest.raises(AssertionError, match=r"range \(2, 3\) overlaps \(1, 3\)"):
        d[2, 3] = 3


@pytest.mark.parametrize("key", [(2, 4), (0, 9), (3, 4), (2, 3), (1, 3), (3, 9), (1, 4)])
def test_equal_inner_crossing_and_enclosing_ranges_overlap(key):
    d = IndexDict({(2, 4): "a"})
    assert key in d
    with pytest.raises(RangeError, match="overlaps"):
        d[key] = "b"


@pytest.mark.parametrize("key", [(1, 2), (4, 5)])
def test_touching_ranges_do_not_overlap(key):
    d = IndexDict({(2, 4): "a"})
    assert key not in d
    d[key] = "b"
    assert d[key] == "b"


@pytest.mark.parametrize("key", [(3, 3), (4, 3)])
def test_a_range_needs_a_start_below_its_end(key):
    with pytest.raises(AssertionError, match="needs start < end"):
        IndexDict()[key] = 1


@pytest.mark.parametrize("key", [3, (1, 2, 3), ("a", "b"), (1.0, 2), (False, True)])
def test_a_key_that_is_not_two_ints_is_refused(key):
    with pytest.raises(AssertionError, match="a key is a range"):
        assert key in IndexDict()


@given(st.lists(spans))
def test_ranges_stay_sorted_and_apart_whatever_is_inserted(keys):
    d = IndexDict()
    for key in keys:
        if key not in d:
            d[key] = sum(key)
    stored = list(d)
    assert stored == sorted(stored)
    assert all(a[1] <= b[0] for a, b in zip(stored, stored[1:], strict=False))
    covered = {i for start, end in stored for i in range(start, end)}
    assert all(not covered.isdisjoint(range(*key)) for key in keys)
    assert all(d[key] == sum(key) for key in stored)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_index_dict_can_be_copied(clone):
    d = IndexDict({(4, 5): "b", (1, 3): "a"})
    assert clone(d) == d
    assert type(clone(d)) is IndexDict
