import pytest
import torch
from torch import nn

from mutorch import Mutator, ValueChoice, export, freeze
from mutorch.errors import ChoiceError, ConstraintError, SpaceError
from mutorch.mutables import OneShotMutableOP, choice_of


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = ValueChoice([1, 2, 3], label="factor")
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) * self.factor.current_choice


def make_net():
    op = OneShotMutableOP({"scaled": Scaled(), "skip": nn.Identity()}, alias="op")
    return nn.Sequential(op, OneShotMutableOP({"relu": nn.ReLU(), "tanh": nn.Tanh()}, alias="act"))


def test_a_sample_without_what_does_not_matter_gives_the_subnet():
    net, x = make_net(), torch.randn(2, 4)
    frozen = freeze(net, {"op": "skip", "act": "tanh"})
    assert torch.equal(frozen(x), x.tanh())
    assert [type(module) for module in frozen] == [nn.Identity, nn.Tanh]


def test_a_whole_architecture_gives_what_export_gives():
    net, x = make_net(), torch.randn(2, 4)
    for architecture in Mutator(net).space.grid():
        assert torch.equal(freeze(net, architecture)(x), export(net, architecture)(x))


def test_a_missing_decision_that_matters_is_named():
    with pytest.raises(SpaceError, match="sample missing: decision 'factor' matters here"):
        freeze(make_net(), {"op": "scaled", "act": "relu"})
    with pytest.raises(SpaceError, match="no decision 'activation'; .*allowed: 'op', 'factor', 'act'"):
        freeze(make_net(), {"op": "skip", "activation": "relu"})
    with pytest.raises(ChoiceError, match="'factor' has no choice 4"):
        freeze(make_net(), {"op": "scaled", "factor": 4, "act": "relu"})


def test_groups_and_constraints_of_a_mutator_count():
    net = make_net()
    rule = choice_of(net[0]).ne("skip")
    mutator = Mutator(net, custom_groups={"activation": ["act"]}, constraints=[rule])
    frozen = freeze(net, {"op": "scaled", "factor": 2, "activation": "tanh"}, mutator=mutator)
    assert type(frozen[1]) is nn.Tanh
    with pytest.raises(ConstraintError, match="op != 'skip'"):
        freeze(net, {"op": "skip", "activation": "tanh"}, mutator=mutator)
