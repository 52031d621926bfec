import copy
import pickle

import pytest
import torch
from torch import nn

from mutorch import Mutator, Require, ValueChoice, export, freeze
from mutorch.errors import ConstraintError, DerivedError, ExpressionError, SpaceError
from mutorch.mutables import DiffMutableOP, MutableValue, OneShotMutableOP, choice_of
from mutorch.space import Ref
from mutorch.testing import check_export


class Row(nn.Module):
    """As many layers as its depth says, of which it computes as many channels as its width says."""

    def __init__(self):
        super().__init__()
        self.depth, self.width = ValueChoice([1, 2, 3]), ValueChoice([4, 8])
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.act = OneShotMutableOP({"relu": nn.ReLU(), "skip": nn.Identity()})
        self.rule = Require(self.depth * self.width <= 16)
        self.other = Require(choice_of(self.act).ne("skip") | (self.depth < 2))

    def forward(self, x):
        for layer in self.layers[: self.depth.current_choice]:
            x = nn.functional.linear(x, layer.weight[: self.width.current_choice])
            x = nn.functional.pad(self.act(x), (0, 8 - self.width.current_choice))
        return x


class Inner(nn.Module):
    def __init__(self, rule):
        super().__init__()
        self.a, self.b = ValueChoice([1, 2, 3]), ValueChoice([1, 2, 3])
        self.rule = Require(rule(self.a, self.b))

    def forward(self, x):
        return x * self.a.current_choice + self.b.current_choice


def allowed(space):
    return [tuple(architecture.values()) for architecture in space.grid()]


# ---- the space -------------------------------------------------------------------------------------------------------


def test_rules_of_a_model_are_constraints_of_its_space():
    space = Mutator(Row()).space
    assert space.names == ("depth", "width", "act")
    assert [str(c) for c in space.constraints] == ["depth * width <= 16", "(act != 'skip') | (depth < 2)"]
    assert len(allowed(space)) == space.size == 7
    assert all(d * w <= 16 and (act != "skip" or d < 2) for d, w, act in allowed(space))


def test_a_rule_decides_nothing_and_adds_no_parameter_or_key():
    net = Row()
    plain = {name for name in net.state_dict() if not name.startswith(("rule", "other"))}
    assert set(net.state_dict()) == plain
    assert list(net.rule.children()) == []
    assert (net.rule.choices, net.rule.is_decision, net.rule.dump_chosen().chosen) == ([True], False, True)
    assert repr(net.rule) == "Require(ValueChoice_0 * ValueChoice_1 <= 16)"


def test_a_rule_inside_a_candidate_holds_only_where_that_is_chosen():
    # At the defaults, which count where the candidate is not chosen, the rule does not hold.
    blocks = OneShotMutableOP({"sum": Inner(lambda a, b: a + b >= 5), "skip": nn.Identity()}, alias="op")
    space = Mutator(nn.Sequential(blocks)).space
    assert space.size == 3 + 1
    assert space.default["op"] == "skip"
    deeper = OneShotMutableOP({"in": nn.Sequential(blocks), "out": nn.Identity()}, alias="outer")
    assert Mutator(nn.Sequential(deeper)).space.size == 3 + 1 + 1


def test_a_copied_model_has_its_own_rules():
    net = Row()
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert Mutator(copied).space == Mutator(net).space
        Mutator(copied).set_choices({"depth": 2, "width": 8, "act": "relu"})
        assert copied.rule.expression.sources == (copied.depth, copied.width)
        assert copied.rule.current_choice


def test_a_broken_architecture_is_refused_and_changes_nothing():
    net = Row()
    mutator = Mutator(net)
    before = mutator.current_choices
    broken = {"depth": 3, "width": 8, "act": "relu"}
    for refuse in (mutator.set_choices, mutator.fix_choices, lambda a: export(net, a), lambda a: freeze(net, a)):
        with pytest.raises(ConstraintError, match=r"'depth \* width <= 16': depth = 3, width = 8"):
            refuse(broken)
    with pytest.raises(ConstraintError), mutator.at(broken):
        pass
    assert mutator.current_choices == before


def test_a_model_whose_defaults_break_a_rule_starts_at_the_nearest_architecture():
    net = Inner(lambda a, b: a + b >= 4)
    mutator = Mutator(net)
    assert mutator.current_choices == mutator.space.default == {"a": 1, "b": 3}


# ---- export ----------------------------------------------------------------------------------------------------------


def test_an_exported_model_computes_what_the_supernet_computes():
    net = Row()
    mutator = Mutator(net)
    x = torch.randn(2, 8)
    for seed in range(20):
        architecture = mutator.space.sample(seed)
        mutator.set_choices(architecture)
        assert torch.equal(export(net, architecture)(x), net(x))
    check_export(net, x)


def test_a_bare_module_stands_where_a_rule_stood():
    exported = export(Row(), {"depth": 1, "width": 8, "act": "skip"})
    assert type(exported.rule) is nn.Module
    assert vars(exported.rule).keys() == vars(nn.Module()).keys()


def test_fixed_models_keep_their_rules():
    net = Row()
    mutator = Mutator(net)
    mutator.fix_choices({"depth": 2, "width": 4, "act": "relu"})
    assert mutator.space.size == 1
    assert net.rule.current_choice


# ---- from outside ----------------------------------------------------------------------------------------------------


def make_chain():
    ops = [OneShotMutableOP({"conv": nn.Linear(2, 2), "skip": nn.Identity()}) for _ in range(3)]
    return nn.Sequential(*ops, MutableValue([1, 2, 3], alias="value"))


def test_constraints_are_added_from_outside_over_mutables_or_names():
    net = make_chain()
    over_mutables = choice_of(net[0]).eq("skip") | choice_of(net[3]).isin([1, 2])
    over_names = Ref("0").eq("skip") | Ref("value").isin([1, 2])
    one, other = Mutator(net, constraints=[over_mutables]), Mutator(net, constraints=[over_names])
    third = Mutator(net)
    third.require(over_mutables)
    assert one.space == other.space == third.space
    assert one.space.size == 8 * 3 - 4


def test_a_required_rule_moves_choices_that_break_it():
    mutator = Mutator(make_chain())
    mutator.set_choices({"0": "conv", "1": "conv", "2": "skip", "value": 3})
    mutator.require(Ref("value") < 3)
    assert mutator.current_choices["value"] < 3
    mutator.prepare_from_supernet(mutator.model)
    assert len(mutator.space.constraints) == 1


def test_custom_groups_name_the_decisions_of_rules():
    net = make_chain()
    mutator = Mutator(net, custom_groups={"first": ["0", "1"]}, constraints=[choice_of(net[1]).eq("skip")])
    assert str(mutator.space.constraints[0]) == "first == 'skip'"


# ---- search by gradient ----------------------------------------------------------------------------------------------


def make_learned():
    ops = [DiffMutableOP({"a": nn.Linear(2, 2), "b": nn.Identity(), "zero": nn.Tanh()}) for _ in range(3)]
    net = nn.Sequential(*ops)
    mutator = Mutator(net, constraints=[choice_of(ops[0]).ne(choice_of(ops[1]))])
    mutator.prepare_arch_params()
    with torch.no_grad():
        for parameter, values in zip(mutator.arch_parameters(), ([3, 1, 2], [3, 2.5, 0], [0, 2, 9]), strict=True):
            parameter.copy_(torch.tensor(values))
    return mutator


def test_the_most_probable_architecture_obeys():
    mutator = make_learned()
    assert mutator.argmax() == {"0": "a", "1": "b", "2": "b"}
    assert mutator.argmax(exclude=()) == {"0": "a", "1": "b", "2": "zero"}
    assert mutator.argmax(exclude=("b",)) == {"0": "zero", "1": "a", "2": "zero"}
    assert mutator.sample_choices() == mutator.argmax(exclude=())
    with pytest.raises(SpaceError, match=r"left without the excluded candidates \['b', 'zero'\]"):
        mutator.argmax(exclude=("b", "zero"))


def test_architectures_drawn_by_probability_obey():
    mutator = make_learned()
    drawn = [mutator.sample_probable(seed) for seed in range(50)]
    assert all(architecture in mutator.space for architecture in drawn)
    assert len({tuple(architecture.values()) for architecture in drawn}) > 3


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_rules_are_expressions():
    value = MutableValue([1, 2])
    with pytest.raises(ExpressionError, match=r"got False; write `.eq"):
        Require(value == 3)
    with pytest.raises(ExpressionError, match=r"write choice_of"):
        Require(value)
    with pytest.raises(ExpressionError, match="choice_of.mutable. instead of Ref"):
        Require(choice_of(value) < Ref("depth"))


def test_rules_speak_of_decisions_of_the_model():
    net = Row()
    stranger = ValueChoice([1, 2], label="stranger")
    with pytest.raises(SpaceError, match="stranger < 2 reads stranger, which is no decision of this model"):
        Mutator(net, constraints=[stranger < 2])
    with pytest.raises(SpaceError, match="no decision 'dept'; did you mean 'depth'"):
        Mutator(net, constraints=[Ref("dept") < 2])
    with pytest.raises(SpaceError, match=r"no decision of this model; write its arithmetic with ValueChoice"):
        Mutator(make_chain(), constraints=[choice_of(MutableValue([1, 2]) * 2) < 2])


def test_a_model_that_nothing_obeys_is_refused():
    net = Inner(lambda a, b: a > b)
    net.more = Require(net.b > 2)
    with pytest.raises(SpaceError, match="no architecture obeys 'a > b' and 'b > 2'"):
        Mutator(net)


def test_a_rule_has_nothing_to_set_or_fix():
    rule = Row().rule
    with pytest.raises(DerivedError, match="follows the mutables"):
        rule.current_choice = True
    with pytest.raises(DerivedError, match="nothing to fix"):
        rule.fix_chosen(True)
