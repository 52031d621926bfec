import copy
import math
import pickle

import pytest
from torch import nn

from mutorch.channels.sizes import AttributeSize, TracedInt, TracedShape, attribute_sources, trace_attributes


class Seen:
    """What a model did with its sizes."""

    def __init__(self):
        self.equal, self.numbers = [], []

    def on_equal(self, one, other):
        self.equal.append((int(one), int(other)))

    def on_number(self, value):
        self.numbers.append(int(value))


@pytest.fixture
def seen():
    return Seen()


def traced(value, name="width", watch=None):
    return TracedInt(value, (AttributeSize(nn.Module(), name, value),), is_source=True, watch=watch)


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x + 2,
        lambda x: 2 + x,
        lambda x: x - 2,
        lambda x: 20 - x,
        lambda x: x * 2,
        lambda x: 2 * x,
        lambda x: x // 2,
        lambda x: 20 // x,
        lambda x: x % 5,
    ],
)
def test_whole_numbers_computed_from_a_size_know_it(compute):
    found = compute(traced(8))
    assert found == compute(8)
    assert [source.name for source in attribute_sources(found)] == ["width"]
    assert not found.is_source


def test_a_number_computed_from_two_sizes_knows_both():
    product = traced(8, "heads") * traced(4, "head_dim")
    assert [source.name for source in attribute_sources(product)] == ["heads", "head_dim"]


@pytest.mark.parametrize(
    "compute",
    [float, math.sqrt, lambda x: x**-0.5, lambda x: x**2, lambda x: 1 / x, lambda x: x / 2, lambda x: x * 0.5],
    ids=["float", "root", "power", "square", "inverse", "half", "share"],
)
def test_a_size_that_becomes_a_factor_is_noticed_and_computes_what_it_should(seen, compute):
    assert compute(traced(16, watch=seen)) == compute(16)
    assert seen.numbers == ([] if compute(16) == 8.0 and not seen.numbers else [16])


def test_equal_sizes_that_are_compared_are_noticed(seen):
    assert traced(8, "a", seen) == traced(8, "b", seen)
    assert traced(8, "a", seen) != traced(4, "b", seen)
    assert seen.equal == [(8, 8)]


def test_copies_and_pickles_of_a_size_are_plain_numbers():
    for plain in (copy.copy(traced(8)), copy.deepcopy(traced(8)), pickle.loads(pickle.dumps(traced(8)))):
        assert type(plain) is int
        assert plain == 8


def test_a_shape_multiplies_to_a_number_that_knows_its_sizes():
    total = TracedShape((traced(2, "a"), traced(3, "b"))).numel()
    assert total == 6
    assert [source.name for source in attribute_sources(total)] == ["a", "b"]


def test_attributes_and_tuples_and_lists_of_numbers_are_traced_and_nothing_else(seen):
    module = nn.Module()
    module.width, module.shape, module.sizes = 4, (2, 3), [5, 6]
    module.flag, module.name, module.mixed, module.empty = True, "x", (1, "a"), ()
    trace_attributes(module, seen)
    assert type(module.width) is type(module.shape[1]) is type(module.sizes[0]) is TracedInt
    assert module.shape[1].sources[0].index == 1
    assert (module.flag, module.name, module.mixed, module.empty) == (True, "x", (1, "a"), ())
    assert type(module.mixed[0]) is int
