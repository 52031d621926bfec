import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables import DumpChosen, MutableValue, OneShotMutableOP, OneShotMutableValue


def test_a_value_begins_at_the_first_and_a_one_shot_value_at_the_largest():
    given = [4, 2, 6]
    value, one_shot = MutableValue(given), OneShotMutableValue(given)
    assert (value.current_choice, value.choices) == (4, [4, 2, 6])
    assert value.choices is given
    assert (one_shot.current_choice, one_shot.choices, given) == (6, [2, 4, 6], [4, 2, 6])
    assert (one_shot.min_choice, one_shot.max_choice) == (2, 6)


@pytest.mark.parametrize("make", [MutableValue, OneShotMutableValue])
def test_a_default_must_be_in_the_list(make):
    assert make([2, 0, 4], default_value=0).current_choice == 0
    with pytest.raises(ChoiceError, match=f"{make.__name__} 'depth' has no choice 3; .*allowed:"):
        make([2, 4], default_value=3, alias="depth")


@pytest.mark.parametrize("make", [MutableValue, OneShotMutableValue])
@pytest.mark.parametrize("values", [[2, 3.2], ["a", 1], [1, True], [[1], (1,)]])
def test_values_have_one_type(make, values):
    with pytest.raises(TypeError, match="all values must have one type, got"):
        make(values)


@pytest.mark.parametrize("make", [MutableValue, OneShotMutableValue])
def test_values_are_a_list_without_repetition(make):
    with pytest.raises(ChoiceError, match="value_list is empty"):
        make([])
    with pytest.raises(ChoiceError, match=r"has a value twice: \[1, 2, 1\]"):
        make([1, 2, 1])
    with pytest.raises(TypeError, match="value_list must be a list, got str"):
        make("ab")


def test_choices_are_compared_by_equality():
    value = MutableValue([112, 120])
    value.current_choice = 120.0
    assert (value.current_choice, type(value.current_choice)) == (120, int)
    value.current_choice = np.int64(112)
    assert type(value.current_choice) is int
    shape = MutableValue([[192, 192], [224, 224]])
    shape.current_choice = (224, 224)
    assert shape.current_choice == [224, 224]


@pytest.mark.parametrize("choice", [121, None, "120", [120], {}])
def test_a_value_that_is_not_in_the_list_is_refused(choice):
    value = MutableValue([112, 120])
    with pytest.raises(ValueError, match="MutableValue has no choice .* allowed: 112, 120"):
        value.current_choice = choice
    assert value.current_choice == 112


def test_a_value_shows_itself_and_dumps_its_choice():
    value = MutableValue([2, 4, 6])
    assert repr(value) == "MutableValue(value_list=[2, 4, 6], current_choice=2)"
    assert repr(OneShotMutableValue([3, 1])) == "OneShotMutableValue(value_list=[1, 3], current_choice=3)"
    assert value.dump_chosen() == DumpChosen(chosen=2, meta={"all_choices": [2, 4, 6]})
    assert (value.mutable_prefix, OneShotMutableOP({"a": nn.ReLU()}).mutable_prefix) == ("value", "module")


def test_sampling_draws_each_value_and_follows_the_seed():
    value = OneShotMutableValue([1, 2, 3])
    assert {value.sample_choice(seed) for seed in range(30)} == {1, 2, 3}
    assert value.sample_choice(5) == value.sample_choice(5)
    assert value.sample_choice() in (1, 2, 3)
    assert value.current_choice == 3


def test_a_value_adds_nothing_to_the_state_of_a_model():
    model = nn.Sequential(MutableValue([1, 2]), nn.Linear(2, 2))
    assert list(model.state_dict()) == ["1.weight", "1.bias"]
    assert model.to(torch.float64)[0].current_choice == 1


def test_copies_of_a_value_choose_on_their_own():
    value = OneShotMutableValue([1, 2, 3], alias="depth")
    for copied in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        copied.current_choice = 1
        assert (value.current_choice, copied.alias, copied.default_choice) == (3, "depth", 3)
