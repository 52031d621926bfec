"""What all channel mutables share, and what is derived from them."""

import copy

import pytest
import torch
from torch import nn

from mutorch.errors import ChoiceError, DerivedError
from mutorch.mutables import (
    BaseMutableChannel,
    DerivedMutable,
    DumpChosen,
    MutableValue,
    OneShotMutableChannel,
    OneShotMutableValue,
    SequentialMutableChannel,
    SimpleMutableChannel,
    tick,
)


def ints(mutable):
    return mutable.current_mask.int().tolist()


class Every(BaseMutableChannel):
    """A channel mutable of a user's own: every so-manieth channel."""

    step = 1

    @property
    def current_choice(self):
        return self.step

    @current_choice.setter
    def current_choice(self, choice):
        self.step = choice
        tick()

    @property
    def current_mask(self):
        return torch.arange(self.num_channels) % self.step == 0

    @property
    def choices(self):
        return [1, 2, 3]


def test_a_subclass_needs_its_mask_only():
    channels = Every(5, alias="x")
    assert (channels.prefix, channels.activated_channels, repr(channels)) == (
        5,
        5,
        "Every(num_channels=5, activated_channels=5)",
    )
    channels.current_choice = 2
    assert (channels.prefix, channels.active_index().tolist(), (channels * 2).current_choice) == (None, [0, 2, 4], 6)
    channels.fix_chosen(3)
    assert (channels.is_fixed, channels.dump_chosen()) == (True, DumpChosen(2, {"max_channels": 5}))


@pytest.mark.parametrize("mode", ["number", "ratio"])
def test_derived_channels_follow_in_either_mode(mode):
    channels = SequentialMutableChannel(8, mode)
    twice, half, rounded = channels * 2, 0.5 * channels, channels // (2, 4)
    joined = DerivedMutable.derive_concat_mutable([channels, twice])
    channels.current_choice = 3
    assert [mutable.current_choice for mutable in (twice, half, rounded, joined)] == [6, 1, 4, 9]
    assert [mutable.prefix for mutable in (twice, half, rounded, joined)] == [6, 1, 4, None]
    assert [mutable.num_channels for mutable in (twice, half, rounded, joined)] == [16, 4, 4, 24]
    assert [mutable.activated_channels for mutable in (twice, half, rounded, joined)] == [6, 1, 4, 9]
    assert joined.active_index().tolist() == [0, 1, 2, 8, 9, 10, 11, 12, 13]
    assert ints(half) == [1, 0, 0, 0]
    assert twice.choices == [2, 4, 6, 8, 10, 12, 14, 16]
    assert channels.activated_channels == 3


def test_the_worked_example_of_the_documents_is_printed():
    channels = SequentialMutableChannel(3)
    assert repr(channels * 2) == (
        "DerivedMutable(current_choice=6, activated_channels=6, source_mutables={SquentialMutableChannel("
        "num_channels=3, activated_channels=3)}, is_fixed=False)"
    )


def test_concatenated_masks_keep_their_order():
    first, second = SequentialMutableChannel(3), SequentialMutableChannel(4)
    joined = DerivedMutable.derive_concat_mutable([first, second])
    first.current_choice = 1
    assert (joined.current_choice, ints(joined), joined.prefix) == (5, [1, 0, 0, 1, 1, 1, 1], None)
    first.current_choice = 3
    assert joined.prefix == 7


@pytest.mark.parametrize("derive", [lambda c, v: c * v, lambda c, v: v * c])
@pytest.mark.parametrize(("active", "ratio", "expected"), [(9, 3.5, 31), (7, 2.5, 17), (6, 3.5, 21)])
def test_channels_times_a_value(derive, active, ratio, expected):
    channels, value = SequentialMutableChannel(9), OneShotMutableValue([2.5, 3.5])
    derived = derive(channels, value)
    channels.current_choice, value.current_choice = active, ratio
    assert (derived.current_choice, derived.prefix, derived.num_channels) == (expected, expected, 31)
    assert ints(derived) == [1] * expected + [0] * (31 - expected)
    assert derived.source_mutables == {channels, value}
    value.fix_chosen(2.5)
    assert derived.num_channels == 31


def test_channels_through_a_value_stay_live():
    channels, value = SequentialMutableChannel(12), OneShotMutableValue([2, 3])
    derived = channels // value
    assert (derived.current_choice, derived.num_channels) == (4, 6)
    value.current_choice = 2
    assert derived.current_choice == 6
    channels.current_choice = 5
    assert (derived.current_choice, ints(derived)) == (2, [1, 1, 0, 0, 0, 0])


def test_channels_may_be_the_ratio():
    channels, ratio = SequentialMutableChannel(2), SequentialMutableChannel(3, "ratio")
    derived = channels.derive_expand_mutable(ratio)
    ratio.current_choice = 2
    assert (derived.current_choice, derived.num_channels) == (4, 6)


@pytest.mark.parametrize("other", ["2", [2], None, True, MutableValue([2]), OneShotMutableValue(["a"])])
def test_channels_multiply_with_numbers_and_one_shot_values_only(other):
    channels = SequentialMutableChannel(4)
    for wrong in (lambda: channels * other, lambda: other * channels, lambda: channels // other):
        with pytest.raises(TypeError, match="unsupported operand|can't multiply"):
            wrong()


# ---- channels that stand side by side --------------------------------------------------------------------------------


def test_every_channel_becomes_several():
    channels = SimpleMutableChannel(3)
    expanded = channels.expand_mutable_channel(2)
    channels.current_choice = [0, 2]
    assert ints(expanded) == [1, 1, 0, 0, 1, 1]
    assert torch.equal(expanded.current_choice, expanded.current_mask)
    assert (expanded.num_channels, expanded.activated_channels, expanded.prefix) == (6, 4, None)
    assert expanded.dump_chosen() == DumpChosen([0, 1, 4, 5])
    expanded.fix_chosen([0, 1, 4, 5])
    with pytest.raises(DerivedError, match="cannot be fixed to"):
        expanded.fix_chosen([0])
    again = expanded * 2
    assert (again.current_choice, again.num_channels) == (8, 12)
    assert DerivedMutable.derive_concat_mutable([expanded, channels]).current_choice == 6
    assert channels.expand_mutable_channel(3.0).num_channels == 9


def test_leading_channels_stay_leading():
    channels = SequentialMutableChannel(4)
    expanded = channels.expand_mutable_channel(3)
    channels.current_choice = 2
    assert (expanded.prefix, expanded.num_channels) == (6, 12)


@pytest.mark.parametrize("ratio", [0, -1, 1.5, True])
def test_a_channel_becomes_a_whole_number_of_channels(ratio):
    with pytest.raises(ChoiceError, match="every channel becomes a whole number of channels"):
        SimpleMutableChannel(3).expand_mutable_channel(ratio)


# ---- copies ----------------------------------------------------------------------------------------------------------


def test_derived_channels_of_a_copy_read_the_copy():
    model = nn.ModuleList([SimpleMutableChannel(3), OneShotMutableChannel(4, [2, 4]), OneShotMutableValue([1, 2])])
    simple, width, value = model
    model += [simple.expand_mutable_channel(2), width * value, width // 2, simple * 2]
    model.append(DerivedMutable.derive_concat_mutable([simple, width]))
    copied = copy.deepcopy(model)
    copied[0].current_choice, copied[1].current_choice, copied[2].current_choice = [1], 2, 1
    assert [mutable.activated_channels for mutable in copied[3:]] == [2, 2, 8, 2, 3]
    assert [mutable.activated_channels for mutable in model[3:]] == [6, 8, 8, 6, 7]


def test_a_mask_of_ones_own_has_a_prefix_too():
    channels = SequentialMutableChannel(4)
    derived = DerivedMutable(lambda: channels.current_choice, lambda: channels.current_mask.flip(0))
    assert (derived.prefix, derived.num_channels) == (4, 4)
    channels.current_choice = 1
    assert (derived.prefix, derived.active_index().tolist(), derived.activated_channels) == (None, [3], 1)
    with pytest.raises(DerivedError, match="has no mask"):
        _ = (MutableValue([1]) * 2).prefix
