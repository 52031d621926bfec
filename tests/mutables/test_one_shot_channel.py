import copy

import numpy as np
import pytest

from mutorch.errors import ChoiceError
from mutorch.mutables import DumpChosen, OneShotMutableChannel


def test_candidates_are_sorted_in_a_copy_and_the_largest_comes_first():
    given = [32, 16, 48]
    channels = OneShotMutableChannel(64, given)
    assert (channels.candidate_choices, channels.choices, given) == ([16, 32, 48], [16, 32, 48], [32, 16, 48])
    assert (channels.current_choice, channels.default_choice, channels.prefix) == (48, 48, 48)
    assert (channels.min_choice, channels.max_choice, channels.num_choices) == (16, 48, 3)
    channels.current_choice = 16
    assert channels.default_choice == 48


def test_without_candidates_all_channels_are_the_only_one():
    first, second = OneShotMutableChannel(8), OneShotMutableChannel(16)
    assert (first.choices, second.choices) == ([8], [16])
    assert OneShotMutableChannel(8, choice_mode="ratio").choices == [1.0]


def test_ratios_are_read_as_they_are_listed():
    channels = OneShotMutableChannel(10, [0.33, 1.0], "ratio")
    channels.current_choice = 0.33
    assert (channels.current_choice, channels.activated_channels) == (0.33, 3)
    assert channels.dump_chosen() == DumpChosen(3, {"max_channels": 10})
    channels.assign(1.0)
    assert channels.activated_channels == 10
    channels.fix_chosen(3)
    assert (channels.current_choice, channels.choices) == (0.33, [0.33])


@pytest.mark.parametrize("error", [ChoiceError, AssertionError])
@pytest.mark.parametrize("choice", [3, 5, 0, 1.0, 0.5, None, True, [4], "4"])
def test_a_number_that_is_no_candidate_is_refused(choice, error):
    channels = OneShotMutableChannel(8, [2, 4])
    with pytest.raises(error, match="OneShotMutableChannel of 8 channels has no choice .*allowed: 2, 4"):
        channels.current_choice = choice
    assert (channels.current_choice, channels.allows(choice)) == (4, False)


@pytest.mark.parametrize("choice", [0.3, 0.35, 1, 4, None])
def test_a_ratio_that_is_no_candidate_is_refused(choice):
    channels = OneShotMutableChannel(10, [0.33, 1.0], "ratio")
    with pytest.raises(ChoiceError, match=r"has no choice .*allowed: 0\.33, 1\.0"):
        channels.current_choice = choice


@pytest.mark.parametrize(
    ("candidates", "mode", "message"),
    [
        ([0.5, 1.0], "number", r"are ints in choice_mode 'number', got 0\.5; choice_mode 'ratio' takes floats"),
        ([1, 2], "ratio", r"are floats in choice_mode 'ratio', got 1; choice_mode 'number' takes ints"),
        ([2, True], "number", "are ints in choice_mode 'number', got True"),
        ([0, 2], "number", "has no choice 0; allowed: ints from 1 to 8"),
        ([9], "number", "has no choice 9; allowed: ints from 1 to 8"),
        ([1.5], "ratio", r"has no choice 1\.5"),
        ([4, 4], "number", "candidates 4 and 4 of .* keep 4 channels both"),
        ([0.5, 0.51], "ratio", r"candidates 0\.5 and 0\.51 of .* keep 4 channels both"),
    ],
)
def test_candidates_that_do_not_fit_are_refused(candidates, mode, message):
    with pytest.raises(ChoiceError, match=message):
        OneShotMutableChannel(8, candidates, mode)


def test_numbers_of_numpy_are_taken_as_plain_ones():
    channels = OneShotMutableChannel(8, np.array([2, 4]))
    assert [type(choice) for choice in channels.choices] == [int, int]
    channels.current_choice = np.int64(2)
    assert channels.current_choice == 2


def test_sampling_draws_each_candidate_and_follows_the_seed():
    channels = OneShotMutableChannel(8, [2, 4, 8])
    assert {channels.sample_choice(seed) for seed in range(30)} == {2, 4, 8}
    assert channels.sample_choice(5) == channels.sample_choice(5)
    assert channels.sample_choice() in (2, 4, 8)


def test_it_shows_itself_and_copies_choose_on_their_own():
    channels = OneShotMutableChannel(8, [2, 4])
    copied = copy.deepcopy(channels)
    copied.current_choice = 2
    assert repr(channels) == "OneShotMutableChannel(num_channels=8, activated_channels=4)"
    assert repr(copied) == "OneShotMutableChannel(num_channels=8, activated_channels=2)"
