import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mutorch.errors import ChoiceError, FixedError
from mutorch.mutables import CLOCK, DumpChosen, OneShotMutableChannel, SequentialMutableChannel, SquentialMutableChannel
from mutorch.registry import MODELS


def test_all_channels_are_active_at_first():
    channels = SequentialMutableChannel(4)
    assert (channels.current_choice, channels.activated_channels, channels.prefix) == (4, 4, 4)
    assert (channels.name, channels.num_channels, channels.mutable_prefix) == ("", 4, "channel")
    assert SequentialMutableChannel(4, choice_mode="ratio").current_choice == 1.0


@pytest.mark.parametrize(
    ("mode", "choice", "expected", "active"),
    [
        ("ratio", 0.5, 0.5, 5),
        ("ratio", 2, 0.2, 2),
        ("number", 0.2, 2, 2),
        ("number", 7, 7, 7),
        ("number", 1, 1, 1),
        ("number", 1.0, 10, 10),
        ("number", 0.01, 1, 1),
        ("number", 0.39, 3, 3),
        ("number", np.int64(3), 3, 3),
        ("ratio", np.float32(0.5), 0.5, 5),
    ],
)
def test_the_type_of_a_choice_says_whether_it_is_a_number_or_a_share(mode, choice, expected, active):
    channels = SequentialMutableChannel(10, mode)
    channels.current_choice = choice
    assert (channels.current_choice, type(channels.current_choice)) == (expected, type(expected))
    assert (channels.activated_channels, channels.is_num_mode) == (active, mode == "number")
    assert channels.current_mask.tolist() == [True] * active + [False] * (10 - active)
    assert channels.active_index().tolist() == list(range(active))


@given(st.integers(1, 3000), st.data())
def test_every_choice_is_read_as_it_was_set(num_channels, data):
    count = data.draw(st.integers(1, num_channels))
    channels = SequentialMutableChannel(num_channels, "ratio")
    channels.current_choice = count / num_channels
    assert (channels.activated_channels, channels.current_choice) == (count, count / num_channels)
    channels.assign(1.0)
    channels.assign(count)
    assert channels.activated_channels == count


@pytest.mark.parametrize("mode", ["number", "ratio"])
@pytest.mark.parametrize("choice", [0, -1, 11, 0.0, 1.5, -0.5, True, None, "5", [5], float("nan"), torch.tensor(5)])
@pytest.mark.parametrize("error", [ChoiceError, AssertionError])
def test_a_choice_out_of_range_or_of_another_type_is_refused(mode, choice, error):
    channels = SequentialMutableChannel(10, mode, alias="stem")
    channels.current_choice = 3
    with pytest.raises(error, match="'stem' of 10 channels has no choice .* ints from 1 to 10, and floats above 0"):
        channels.current_choice = choice
    with pytest.raises(error, match="has no choice"):
        channels.fix_chosen([choice])
    assert not channels.allows(choice)
    assert (channels.activated_channels, channels.is_fixed) == (3, False)


@pytest.mark.parametrize("number", [0, -1, 1.0, True, "4", None])
def test_there_is_at_least_one_channel(number):
    with pytest.raises(ChoiceError, match="num_channels must be an int of at least 1, got"):
        SequentialMutableChannel(number)


@pytest.mark.parametrize("error", [ValueError, AssertionError])
def test_there_are_two_modes(error):
    with pytest.raises(error, match="no choice_mode 'ratios'; did you mean 'ratio'"):
        SequentialMutableChannel(4, "ratios")


def test_choices_are_all_numbers_or_their_ratios():
    number, ratio = SequentialMutableChannel(4), SequentialMutableChannel(4, "ratio")
    assert (number.choices, ratio.choices) == ([1, 2, 3, 4], [0.25, 0.5, 0.75, 1.0])
    assert (number.num_choices, number.default_choice, ratio.max_choice, ratio.min_choice) == (4, 4, 1.0, 0.25)
    assert {number.sample_choice(seed) for seed in range(40)} == {1, 2, 3, 4}
    assert ratio.sample_choice(3) == ratio.sample_choice(3)


@pytest.mark.parametrize("chosen", [(), (None,), (...,), (3,), (0.75,)])
def test_fixing_keeps_the_choice_for_good(chosen):
    channels = SequentialMutableChannel(4)
    channels.current_choice = 3
    channels.fix_chosen(*chosen)
    assert (channels.is_fixed, channels.current_choice, channels.choices, channels.default_choice) == (True, 3, [3], 3)
    channels.current_choice = 3
    with pytest.raises(FixedError, match="is fixed, got 2"):
        channels.current_choice = 2
    for error in (FixedError, AttributeError, AssertionError):
        with pytest.raises(error, match="already fixed to 3; a fixed mutable cannot change"):
            channels.fix_chosen(2)
    assert channels.current_choice == 3


@pytest.mark.parametrize("mode", ["number", "ratio"])
def test_a_dump_can_be_loaded(mode):
    channels, other = SequentialMutableChannel(10, mode), SequentialMutableChannel(10, mode)
    channels.current_choice = 1
    assert channels.dump_chosen() == DumpChosen(1, {"max_channels": 10})
    assert other.allows(channels.export_chosen())
    other.fix_chosen(channels.export_chosen())
    assert other.current_choice == channels.current_choice


def test_the_older_spelling_is_the_same_class_and_the_one_that_is_printed():
    assert SquentialMutableChannel is SequentialMutableChannel
    channels = MODELS.build({"type": "SquentialMutableChannel", "num_channels": 4})
    channels.current_choice = 3
    assert repr(channels) == "SquentialMutableChannel(num_channels=4, activated_channels=3)"
    assert type(MODELS.build({"type": "SequentialMutableChannel", "num_channels": 4})) is type(channels)


def test_channels_add_nothing_to_the_state_of_a_model():
    model = nn.Sequential(SequentialMutableChannel(2), nn.Linear(2, 2))
    assert list(model.state_dict()) == ["1.weight", "1.bias"]


def test_copies_choose_on_their_own():
    channels = SequentialMutableChannel(4, alias="stem")
    channels.current_choice = 3
    for copied in (copy.deepcopy(channels), pickle.loads(pickle.dumps(channels))):
        assert (copied.current_choice, copied.alias) == (3, "stem")
        copied.current_choice = 1
        assert (channels.current_choice, copied.prefix) == (3, 1)


def test_an_order_says_which_channels_are_kept_longest():
    channels = SequentialMutableChannel(5)
    channels.current_choice = 2
    channels.set_order(torch.tensor([4, 1, 0, 2, 3]))
    assert channels.order == [4, 1, 0, 2, 3]
    assert channels.active().tolist() == channels.active_index().tolist() == [1, 4]
    assert channels.current_mask.int().tolist() == [0, 1, 0, 0, 1]
    assert (channels.prefix, channels.activated_channels, channels.current_choice) == (None, 2, 2)
    channels.current_choice = 5
    assert channels.active() == channels.prefix == 5
    channels.set_order([1, 0, 2, 4, 3])
    channels.current_choice = 3
    assert channels.active() == 3  # the first three, whatever their order
    channels.set_order(None)
    assert channels.order == [0, 1, 2, 3, 4]


def test_an_order_is_seen_by_caches_and_goes_along_with_copies():
    channels = SequentialMutableChannel(4)
    channels.current_choice = 2
    before = CLOCK.now
    channels.set_order([3, 2, 1, 0])
    assert CLOCK.now != before
    for copied in (copy.deepcopy(channels), pickle.loads(pickle.dumps(channels))):
        assert copied.active().tolist() == [2, 3]
        copied.set_order(None)
        assert channels.active().tolist() == [2, 3]


@pytest.mark.parametrize(
    "order", [[0, 1], [0, 1, 2, 2], [0, 1, 2, 4], [0.0, 1.0, 2.0, 3.0], torch.ones(4, dtype=torch.bool)]
)
def test_an_order_has_every_position_once(order):
    channels = SequentialMutableChannel(4)
    with pytest.raises(ChoiceError, match="has every position from 0 to 3 once"):
        channels.set_order(order)
    assert channels.order == [0, 1, 2, 3]


def test_the_order_of_a_fixed_mutable_is_final():
    channels = OneShotMutableChannel(4, [2, 4])
    channels.set_order([3, 2, 1, 0])
    channels.fix_chosen(2)
    with pytest.raises(FixedError, match="already fixed"):
        channels.set_order(None)
    assert channels.active().tolist() == [2, 3]
