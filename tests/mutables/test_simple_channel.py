import copy
import json
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mutorch.errors import ChoiceError, FixedError
from mutorch.mutables import DumpChosen, SimpleMutableChannel
from mutorch.registry import MODELS

MASKS = st.lists(st.booleans(), min_size=1, max_size=12).filter(any).map(torch.tensor)


@given(MASKS)
def test_a_mask_comes_back_from_a_dump(mask):
    channels = SimpleMutableChannel(len(mask))
    channels.current_choice = mask
    assert torch.equal(channels.current_choice, mask)
    assert torch.equal(channels.current_mask, mask)
    assert torch.equal(channels.mask, mask.float())
    assert channels.active_index().tolist() == mask.nonzero().flatten().tolist()
    assert channels.activated_channels == int(mask.sum())

    chosen, meta = json.loads(json.dumps(channels.dump_chosen()))
    assert meta == {"max_channels": len(mask)}
    loaded = SimpleMutableChannel(len(mask))
    assert loaded.allows(chosen)
    loaded.fix_chosen(chosen)
    assert torch.equal(loaded.current_mask, mask)


def test_all_channels_are_active_at_first():
    channels = MODELS.build({"type": "SimpleMutableChannel", "num_channels": 4})
    assert repr(channels) == "SimpleMutableChannel(num_channels=4, activated_channels=4)"
    assert (channels.prefix, channels.is_decision, channels.num_choices) == (4, False, 1)
    assert channels.dump_chosen() == DumpChosen([0, 1, 2, 3], {"max_channels": 4})


def test_leading_channels_are_a_prefix():
    channels = SimpleMutableChannel(4)
    channels.current_choice = [1, 0]
    assert (channels.prefix, channels.activated_channels) == (2, 2)
    channels.current_choice = [1, 2]
    assert (channels.prefix, channels.activated_channels) == (None, 2)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (torch.ones(3), r"of 4 channels takes a mask of that length, got shape \(3,\)"),
        (torch.ones(1, 4), r"got shape \(1, 4\)"),
        (torch.ones(()), r"got shape \(\)"),
        (torch.tensor([0.5, 1, 1, 1]), "takes a mask of zeros and ones, got"),
        (torch.tensor([float("nan"), 1, 1, 1]), "takes a mask of zeros and ones, got"),
        (torch.zeros(4), "needs at least one active channel"),
        ([], "needs at least one active channel"),
        ([0, 4], "takes positions from 0 to 3, each once; got 4"),
        ([-1], "takes positions from 0 to 3, each once; got -1"),
        ([1, 1], r"takes positions from 0 to 3, each once; got \[1, 1\]"),
        ([True, False, True, True], r"takes a mask \(a tensor\) or a list of active positions, got \[True"),
        (3, "takes a mask .* got 3"),
        (0.5, "takes a mask .* got 0.5"),
        ("0", "takes a mask .* got '0'"),
    ],
)
def test_what_is_no_mask_is_refused_and_changes_nothing(choice, message):
    channels = SimpleMutableChannel(4)
    channels.current_choice = [1, 2]
    for change in (channels.fix_chosen, channels.assign):
        with pytest.raises(ChoiceError, match=message):
            change(choice)
    assert not channels.allows(choice)
    assert (channels.active_index().tolist(), channels.is_fixed) == ([1, 2], False)


def test_fixing_keeps_the_mask_for_good():
    channels = SimpleMutableChannel(4)
    channels.fix_chosen([1, 2])
    channels.current_choice = [2, 1]
    with pytest.raises(FixedError, match=r"is fixed, got \[1\]"):
        channels.current_choice = [1]
    for error in (FixedError, AttributeError, AssertionError):
        with pytest.raises(error, match=r"already fixed to \[1, 2\]"):
            channels.fix_chosen([1])
    assert channels.active_index().tolist() == [1, 2]


def test_the_mask_moves_with_a_model_and_is_not_in_its_state():
    model = nn.Sequential(SimpleMutableChannel(4), nn.Linear(2, 2))
    model[0].current_choice = [1, 2]
    assert list(model.state_dict()) == ["1.weight", "1.bias"]
    assert [name for name, _ in model.named_buffers()] == ["0.mask"]
    for moved in (model.half(), model.double(), model.to("cpu")):
        assert moved[0].active_index().tolist() == [1, 2]
        assert moved[0].current_mask.dtype is torch.bool


def test_a_model_can_be_built_without_memory_and_get_it_later():
    with torch.device("meta"):
        model = nn.Sequential(SimpleMutableChannel(4), nn.Linear(2, 2))
        model[0].current_choice = [1, 2]
        assert model[0].active_index().tolist() == [1, 2]
    assert model[0].mask.is_meta
    model.to_empty(device="cpu")
    assert model[0].mask.tolist() == [0, 1, 1, 0]


def test_what_is_written_into_the_buffer_is_read():
    channels = SimpleMutableChannel(4)
    assert channels.prefix == 4
    channels.mask[0] = 0
    assert channels.active_index().tolist() == [1, 2, 3]
    channels.mask = torch.tensor([1.0, 0, 0, 0])
    assert channels.prefix == 1


def test_a_choice_given_is_copied_and_a_choice_read_is_too():
    channels, mask = SimpleMutableChannel(2), torch.tensor([1.0, 0.0])
    channels.current_choice = mask
    mask[1] = 1
    channels.current_choice[1] = True
    assert channels.prefix == 1


def test_channels_made_or_set_in_inference_mode_can_be_read():
    with torch.inference_mode():
        channels = SimpleMutableChannel(3)
        channels.current_choice = [1]
        assert channels.active_index().tolist() == [1]
        channels.current_choice = [2]
        assert channels.active_index().tolist() == [2]


def test_copies_choose_on_their_own():
    channels = SimpleMutableChannel(3)
    channels.current_choice = [1]
    assert channels.prefix is None
    for copied in (copy.deepcopy(channels), pickle.loads(pickle.dumps(channels))):
        assert copied.active_index().tolist() == [1]
        copied.current_choice = [0]
        assert (channels.active_index().tolist(), copied.prefix) == ([1], 1)


def test_on_the_meta_device_the_choice_is_still_known():
    with torch.device("meta"):
        channels = SimpleMutableChannel(4)
    channels.current_choice = [0, 2]
    assert channels.current_choice.tolist() == [True, False, True, False]
    before = channels.current_choice
    channels.current_choice = [1]
    channels.current_choice = before
    assert channels.activated_channels == 2
