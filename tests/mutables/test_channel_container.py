import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mutorch.errors import ChoiceError, FixedError
from mutorch.mutables import (
    DerivedMutable,
    DumpChosen,
    MutableChannelContainer,
    MutableValue,
    OneShotMutableChannel,
    OneShotMutableValue,
    SequentialMutableChannel,
    SimpleMutableChannel,
)


def ints(mutable):
    return mutable.current_mask.int().tolist()


def test_an_empty_container_is_all_active():
    container = MutableChannelContainer(4)
    assert repr(container) == "MutableChannelContainer(num_channels=4, activated_channels=4)"
    assert (container.prefix, ints(container), container.is_decision, container.num_choices) == (4, [1] * 4, False, 1)
    assert torch.equal(container.current_choice, container.current_mask)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(1, 4)), max_size=4), st.integers(0, 2))
def test_the_mask_is_that_of_the_members_with_ones_between(members, tail):
    expected, ranges = [], []
    for gap, length, active in members:
        ranges.append((len(expected) + gap, len(expected) + gap + length))
        expected += [1] * gap + [1] * min(active, length) + [0] * max(0, length - active)
    expected += [1] * (tail or not members)
    container = MutableChannelContainer(len(expected))
    for (start, end), (_, length, active) in list(zip(ranges, members, strict=True))[::-1]:
        member = SequentialMutableChannel(length)
        container.register_mutable(member, start, end)
        member.current_choice = min(active, length)
    assert ints(container) == expected
    assert container.activated_channels == sum(expected)
    assert container.active_index().tolist() == [place for place, one in enumerate(expected) if one]
    leads = expected == sorted(expected, reverse=True)
    assert container.prefix == (sum(expected) if leads else None)
    covered = [place for start, end in container.mutable_channels for place in range(start, end)]
    assert covered == list(range(len(expected)))


def test_members_of_every_kind_are_followed():
    simple, width, scale = SimpleMutableChannel(3), OneShotMutableChannel(2, [1, 2]), OneShotMutableValue([1, 2])
    container = MutableChannelContainer(13)
    container.register_mutable(width * scale, 3, 7)
    container.register_mutable(simple, 0, 3)
    container.register_mutable(simple.expand_mutable_channel(2), 7, 13)
    simple.current_choice = [0, 2]
    width.current_choice, scale.current_choice = 1, 2
    assert ints(container) == [1, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1]
    assert container.dump_chosen() == DumpChosen([0, 2, 3, 4, 7, 8, 11, 12], {"max_channels": 13})


@pytest.mark.parametrize("span", [(0, 4), (0, 8), (1, 3), (3, 5), (2, 4), (2, 6)])
@pytest.mark.parametrize("error", [ChoiceError, AssertionError])
def test_ranges_may_not_overlap(span, error):
    container = MutableChannelContainer(8)
    container.register_mutable(SequentialMutableChannel(3), 1, 4)
    with pytest.raises(error, match=rf"range \({span[0]}, {span[1]}\) overlaps \(1, 4\), which is registered already"):
        container.register_mutable(SequentialMutableChannel(span[1] - span[0]), *span)
    assert list(container.mutable_channels) == [(1, 4)]


def test_what_was_filled_gives_way():
    container = MutableChannelContainer(8)
    width = SequentialMutableChannel(2)
    assert container.prefix == 8
    container.register_mutable(width, 4, 6)
    width.current_choice = 1
    assert ints(container) == [1, 1, 1, 1, 1, 0, 1, 1]
    assert list(container.mutable_channels) == [(0, 4), (4, 6), (6, 8)]
    container.register_mutable(SequentialMutableChannel(4), 0, 4)
    with pytest.raises(ChoiceError, match=r"overlaps \(4, 6\)"):
        container.register_mutable(SequentialMutableChannel(4), 4, 8)
    assert ints(container) == [1, 1, 1, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("span", [(-1, 3), (5, 9), (4, 4), (5, 1)])
def test_a_range_must_lie_in_the_container(span):
    with pytest.raises(ChoiceError, match=r"range .* is not in a container of 8 channels"):
        MutableChannelContainer(8).register_mutable(SequentialMutableChannel(4), *span)


def test_a_range_is_as_long_as_its_mutable():
    with pytest.raises(ChoiceError, match=r"range \(0, 3\) has 3 channels, the mutable 4: SquentialMutableChannel"):
        MutableChannelContainer(8).register_mutable(SequentialMutableChannel(4), 0, 3)


@pytest.mark.parametrize("wrong", [MutableValue([1, 2]), MutableValue([1, 2]) * 2, nn.ReLU(), 4, None])
def test_only_channels_can_be_registered(wrong):
    with pytest.raises(TypeError, match="only mutables with channels can be registered, got"):
        MutableChannelContainer(8).register_mutable(wrong, 0, 4)


def test_a_container_has_no_choice_of_its_own():
    container = MutableChannelContainer(4)
    with pytest.raises(NotImplementedError, match="has the choices of its members; set theirs"):
        container.current_choice = torch.ones(4)
    container.fix_chosen()
    with pytest.raises(AttributeError, match="already fixed"):
        container.fix_chosen()
    with pytest.raises(FixedError, match="already fixed"):
        container.register_mutable(SequentialMutableChannel(4), 0, 4)


def test_a_container_is_read_on_the_cpu_whatever_the_default_device():
    container, simple = MutableChannelContainer(8), SimpleMutableChannel(4)
    container.register_mutable(simple, 4, 8)
    with torch.device("meta"):
        simple.current_choice = torch.tensor([1, 0, 1, 0], device="cpu")
        assert ints(container) == [1, 1, 1, 1, 1, 0, 1, 0]
        assert container.active_index().device == torch.device("cpu")


def test_members_are_no_child_modules():
    container = MutableChannelContainer(4)
    container.register_mutable(SimpleMutableChannel(4), 0, 4)
    assert list(container.modules()) == [container]


def test_what_is_derived_from_a_container_follows_its_members():
    container, width = MutableChannelContainer(4), SequentialMutableChannel(2)
    container.register_mutable(width, 0, 2)
    twice = container * 2
    repeated = container.expand_mutable_channel(2)
    joined = DerivedMutable.derive_concat_mutable([container, width])
    width.current_choice = 1
    assert (twice.current_choice, joined.current_choice) == (6, 4)
    assert ints(twice) == [1, 1, 1, 1, 1, 1, 0, 0]
    assert ints(repeated) == [1, 1, 0, 0, 1, 1, 1, 1]
    assert ints(joined) == [1, 0, 1, 1, 1, 0]
    assert twice.choices == [6]


class Op(nn.Module):
    def __init__(self):
        super().__init__()
        self.attrs = {"in_channels": MutableChannelContainer(8), "out_channels": MutableChannelContainer(4)}

    def get_mutable_attr(self, attr):
        return self.attrs.get(attr)


def test_a_mutable_is_registered_on_either_side_of_a_module():
    op, width = Op(), SequentialMutableChannel(4)
    width.current_choice = 2
    MutableChannelContainer.register_mutable_channel_to_module(op, width)
    MutableChannelContainer.register_mutable_channel_to_module(op, width, is_to_output_channel=False, start=4)
    MutableChannelContainer.register_mutable_channel_to_module(op, width, False, 0, 4)
    assert list(op.attrs["out_channels"].mutable_channels.items()) == [((0, 4), width)]
    assert list(op.attrs["in_channels"].mutable_channels.items()) == [((0, 4), width), ((4, 8), width)]
    assert ints(op.attrs["in_channels"]) == [1, 1, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("error", [ChoiceError, AssertionError])
def test_a_module_needs_a_container_first(error):
    op = Op()
    op.attrs = {"out_channels": MutableValue([1])}
    with pytest.raises(
        error, match="Op has no MutableChannelContainer for in_channels, but None; register_mutable_attr"
    ):
        MutableChannelContainer.register_mutable_channel_to_module(op, SequentialMutableChannel(4), False)
    with pytest.raises(error, match="no MutableChannelContainer for out_channels, but MutableValue"):
        MutableChannelContainer.register_mutable_channel_to_module(op, SequentialMutableChannel(4))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_follows_the_copied_members(copied):
    model = nn.ModuleDict({"width": SequentialMutableChannel(4), "conv": MutableChannelContainer(10)})
    model["conv"].register_mutable(model["width"], 2, 6)
    model["conv"].register_mutable(model["width"] * 1, 6, 10)
    model["width"].current_choice = 3
    again = copied(model)
    assert ints(again["conv"]) == ints(model["conv"]) == [1, 1, 1, 1, 1, 0, 1, 1, 1, 0]
    again["width"].current_choice = 1
    assert ints(again["conv"]) == [1, 1, 1, 0, 0, 0, 1, 0, 0, 0]
    assert ints(model["conv"]) == [1, 1, 1, 1, 1, 0, 1, 1, 1, 0]
