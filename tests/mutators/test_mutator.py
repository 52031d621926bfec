import copy
import json

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mutorch import Mutator
from mutorch.errors import ChoiceError, SpaceError, StateError
from mutorch.mutables import MutableValue, OneShotMutableOP
from mutorch.mutators import unwrap

X = torch.linspace(-1, 1, 6).reshape(3, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.op = OneShotMutableOP({"tanh": nn.Tanh(), "linear": nn.Linear(2, 2)})
        self.scale = MutableValue([112, 120])
        self.shape = MutableValue([[1, 2], [2, 1]])

    def forward(self, x):
        return self.op(x) * self.scale.current_choice


CHOICES = {"op": "linear", "scale": 120, "shape": [2, 1]}


def test_making_a_mutator_decides_what_is_undecided_and_nothing_else():
    net = Net()
    net.scale.current_choice = 120
    assert Mutator(net).current_choices == {"op": "tanh", "scale": 120, "shape": [1, 2]}
    net.op.current_choice = "linear"
    assert Mutator(net).current_choices["op"] == "linear"


def test_members_of_a_group_follow_the_one_that_was_decided():
    model = nn.Sequential(*(OneShotMutableOP({"a": nn.ReLU(), "b": nn.Tanh()}, alias="act") for _ in range(3)))
    model[1].current_choice = "b"
    mutator = Mutator(model)
    assert [block.current_choice for block in model] == ["b", "b", "b"]
    mutator.set_choices({"act": "a"})
    assert [block.current_choice for block in model] == ["a", "a", "a"]


def test_set_choices_are_the_current_ones_and_plain_data():
    mutator = Mutator(Net())
    mutator.set_choices(CHOICES)
    assert mutator.current_choices == CHOICES
    assert json.loads(json.dumps(mutator.current_choices)) == CHOICES
    assert yaml.safe_load(yaml.safe_dump(mutator.current_choices)) == CHOICES
    assert mutator.current_choices in mutator.space


@pytest.mark.parametrize(
    "spelled",
    [
        {"op": "linear", "scale": 120.0, "shape": [2, 1]},
        {"op": np.str_("linear"), "scale": np.int64(120), "shape": (2, 1)},
        {"shape": [2.0, 1.0], "scale": 120, "op": "linear"},
    ],
)
def test_choices_are_set_as_the_model_spells_them(spelled):
    net = Net()
    mutator = Mutator(net)
    mutator.set_choices(spelled)
    assert mutator.current_choices == CHOICES
    found = net.op.current_choice, net.scale.current_choice, net.shape.current_choice[0]
    assert [type(value) for value in found] == [str, int, int]


def test_tuples_stay_tuples_in_the_model_and_are_lists_in_an_architecture():
    model = nn.Sequential(MutableValue([(1, 1), (3, 3)], default_value=(3, 3)))
    mutator = Mutator(model)
    assert (model[0].current_choice, mutator.current_choices) == ((3, 3), {"0": [3, 3]})
    mutator.set_choices({"0": [1, 1]})
    assert (model[0].current_choice, mutator.current_choices) == ((1, 1), {"0": [1, 1]})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"op": "conv"}, ChoiceError, "decision 'op' has no choice 'conv'"),
        ({"shape": [9, 9]}, ValueError, r"decision 'shape' has no choice \[9, 9\]"),
        ({"scale": None}, AssertionError, "decision 'scale' has no choice None"),
        ({"scales": 1}, SpaceError, "no decision 'scales'; did you mean 'scale'"),
        ({"op": [{}]}, ChoiceError, "decision 'op' has no choice"),
    ],
)
def test_a_bad_architecture_changes_nothing(change, error, message):
    mutator = Mutator(Net())
    mutator.set_choices(CHOICES)
    with pytest.raises(error, match=message):
        mutator.set_choices({"op": "tanh", "scale": 112, "shape": [1, 2], **change})
    assert mutator.current_choices == CHOICES


@pytest.mark.parametrize("architecture", [{"op": "tanh"}, {}, None, "tanh", ["tanh", 112, [1, 2]]])
def test_every_decision_must_be_decided(architecture):
    mutator = Mutator(Net())
    mutator.set_choices(CHOICES)
    with pytest.raises(SpaceError, match="undecided: |an architecture is a dict from decision to choice, got"):
        mutator.set_choices(architecture)
    assert mutator.current_choices == CHOICES


def test_extremes_can_be_read_and_set():
    mutator = Mutator(Net())
    mutator.set_max_choices()
    assert mutator.current_choices == mutator.max_choices == {"op": "linear", "scale": 120, "shape": [1, 2]}
    mutator.set_min_choices()
    assert mutator.current_choices == mutator.min_choices == {"op": "tanh", "scale": 112, "shape": [1, 2]}


def test_samples_are_of_the_asked_kind():
    mutator = Mutator(Net())
    assert mutator.sample_choices(rng=3) == mutator.space.sample(3)
    kinds = [mutator.sample_choices(kind) for kind in ("max", "min", "default")]
    assert kinds == [mutator.space.max, mutator.space.min, mutator.space.default]
    with pytest.raises(TypeError, match="a random architecture needs rng"):
        mutator.sample_choices()
    with pytest.raises(NotImplementedError, match="no kind 'maxi'; did you mean 'max'"):
        mutator.sample_choices("maxi")


# ---- for a while -----------------------------------------------------------------------------------------------------


def test_at_gives_the_model_and_puts_everything_back():
    net = Net()
    mutator = Mutator(net)
    before = mutator.current_choices
    with mutator.at(CHOICES) as model:
        assert model is net
        assert mutator.current_choices == CHOICES
        with mutator.at(mutator.min_choices):
            assert mutator.current_choices == mutator.min_choices
        assert mutator.current_choices == CHOICES
    assert mutator.current_choices == before


def test_at_puts_everything_back_after_an_exception():
    mutator = Mutator(Net())
    before = mutator.current_choices
    with pytest.raises(ZeroDivisionError), mutator.at(CHOICES):
        raise ZeroDivisionError
    with pytest.raises(ChoiceError, match="has no choice 'conv'"), mutator.at({**CHOICES, "op": "conv"}):
        pytest.fail("the block must not run")
    assert mutator.current_choices == before


# ---- for good --------------------------------------------------------------------------------------------------------


def test_fixing_keeps_one_architecture():
    net = Net()
    mutator = Mutator(net)
    expected = net.op.candidates["linear"](X) * 120
    mutator.fix_choices(CHOICES)
    assert (mutator.space.size, mutator.current_choices) == (1, CHOICES)
    assert torch.equal(net(X), expected)
    assert list(net.state_dict()) == ["op._candidates.linear.weight", "op._candidates.linear.bias"]
    mutator.fix_choices()
    with pytest.raises(ChoiceError, match="decision 'op' has no choice 'tanh'; allowed: 'linear'"):
        mutator.fix_choices({**CHOICES, "op": "tanh"})


def test_fixing_takes_the_current_architecture_unless_told_another():
    net = Net()
    mutator = Mutator(net)
    mutator.set_choices(CHOICES)
    mutator.fix_choices()
    assert (net.op.choices, net.scale.choices, net.shape.choices) == (["linear"], [120], [[2, 1]])


def test_a_bad_architecture_fixes_nothing():
    net = Net()
    with pytest.raises(ChoiceError, match="has no choice 113"):
        Mutator(net).fix_choices({**CHOICES, "scale": 113})
    assert not any(mutable.is_fixed for mutable in (net.op, net.scale, net.shape))


# ---- which model -----------------------------------------------------------------------------------------------------


def test_a_mutator_can_be_given_its_model_later():
    mutator = Mutator(custom_groups={"both": ["0", "1"]})
    assert repr(mutator) == "Mutator(no model)"
    for ask in (
        lambda: mutator.space,
        lambda: mutator.search_groups,
        lambda: mutator.current_choices,
        lambda: mutator.set_choices({}),
        lambda: mutator.sample_choices("max"),
    ):
        with pytest.raises(RuntimeError, match="the mutator has no model yet; call prepare_from_supernet"):
            ask()
    mutator.prepare_from_supernet(nn.Sequential(MutableValue([1, 2]), MutableValue([1, 2])))
    assert mutator.space.names == ("both",)
    assert repr(mutator) == "Mutator(SearchSpace(1 decisions, 2 architectures))"
    with pytest.raises(StateError, match="no model yet"):
        _ = Mutator().model


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "compiled": lambda net: torch.compile(net, backend="eager"),
    "averaged and compiled": lambda net: torch.compile(AveragedModel(net), backend="eager"),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_wrappers_do_not_change_names(wrap):
    net = Net()
    wrapped = wrap(net)
    mutator = Mutator(wrapped)
    assert mutator.space == Mutator(net).space
    assert mutator.model is unwrap(wrapped)
    assert type(mutator.model) is Net
    mutator.set_choices(CHOICES)
    assert torch.equal(wrapped(X), net.op.candidates["linear"](X) * 120)
    torch._dynamo.reset()


def test_a_users_own_wrapper_is_part_of_the_model():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = Net()

    model = Wrapper()
    assert unwrap(model) is model
    assert Mutator(model).space.names == ("module.op", "module.scale", "module.shape")


def test_a_copied_mutator_sets_the_copied_model():
    net = Net()
    net.mutator = Mutator(net)
    copied = copy.deepcopy(net)
    copied.mutator.set_choices(CHOICES)
    assert (copied.mutator.model, copied.mutator.current_choices) == (copied, CHOICES)
    assert copied.op.current_choice == "linear"
    assert net.mutator.current_choices["op"] == net.op.current_choice == "tanh"
