"""Binding a model, its tree of mutables, and callbacks (seed 004)."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mutorch.errors import BindError, ChoiceError, StateError
from mutorch.mutables import InputChoice, LayerChoice, MutableScope, OneShotMutableOP
from mutorch.mutators import BaseMutator, Mutator, RandomMutator, StructuredMutableTreeNode
from mutorch.space import SearchSpace
from mutorch.subnet import export

X = torch.linspace(-1, 1, 4).reshape(2, 2)


def op(key=None, **kwargs):
    return LayerChoice({"linear": nn.Linear(2, 2), "tanh": nn.Tanh()}, key=key, **kwargs)


class Scope(MutableScope):
    def __init__(self, key, **children):
        super().__init__(key)
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x


class Net(nn.Module):
    """Choices in any places; not called."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def keys(mutables):
    return [mutable.key for mutable in mutables]


# ---- the model and its mutator ----------------------------------------------------------------------------------------


def test_the_model_is_no_part_of_the_mutator():
    net = nn.Sequential(op(), nn.Linear(2, 2))
    mutator = BaseMutator(net)
    assert mutator.model is net
    assert len(list(mutator.modules())) == 1
    assert list(mutator.parameters()) == []
    assert mutator.state_dict() == {}


def test_a_wrapped_model_is_looked_through():
    net = nn.Sequential(op())
    mutator = BaseMutator(torch.nn.DataParallel(net))
    assert mutator.model is net
    assert keys(mutator.mutables) == ["0"]


def test_the_model_of_a_mutator_cannot_be_changed():
    mutator = BaseMutator(nn.Sequential(op()))
    with pytest.raises(AttributeError, match="a BaseMutator belongs to one model"):
        mutator.model = nn.Identity()


def test_other_attributes_can_be_set_as_on_any_module():
    mutator = BaseMutator(nn.Sequential(op()))
    mutator.temperature = 2.0
    mutator.controller = nn.Linear(1, 1)
    assert len(list(mutator.parameters())) == 2


def test_a_mutator_is_not_called():
    with pytest.raises(RuntimeError, match="a BaseMutator is not called; call the model"):
        BaseMutator(nn.Sequential(op()))(X)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_a_mutator_is_not_copied_and_says_what_to_do(copied):
    with pytest.raises(StateError, match="a BaseMutator belongs to its model and is not copied; save its state_dict"):
        copied(BaseMutator(nn.Sequential(op())))


def test_a_module_that_holds_model_and_mutator_is_exported_without_the_mutator():
    class Training(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(op())
            self.mutator = RandomMutator(self.net)

        def forward(self, x):
            return self.net(x)

    training = Training()
    exported = export(training, {"net.0": "tanh"})
    assert exported.mutator is None
    assert torch.equal(exported(X), X.tanh())
    assert training.mutator.model is training.net


def test_the_space_is_the_one_that_every_other_mutator_sees():
    net = nn.Sequential(op("a"), InputChoice(2))
    mutator = BaseMutator(net)
    assert isinstance(mutator.space, SearchSpace)
    assert mutator.space == Mutator(net).space


# ---- the tree ----------------------------------------------------------------------------------------------------------


def nested():
    return Net(
        first=op("first"),
        outer=Scope("outer", inner=Scope("inner", op=op("shared")), op=op()),
        again=op("shared"),
        skip=InputChoice(choose_from=["first", "inner", InputChoice.NO_KEY], key="skip"),
    )


def test_mutables_come_scopes_first_in_the_order_of_the_model_each_key_once():
    mutator = BaseMutator(nested())
    assert keys(mutator.mutables) == ["first", "outer", "inner", "shared", "outer.op", "skip"]


def test_the_tree_can_be_iterated_again():
    mutables = BaseMutator(nested()).mutables
    assert list(mutables) == list(mutables)


def test_all_mutables_are_there_with_those_that_share_a_key():
    mutator = BaseMutator(nested())
    assert keys(mutator.undedup_mutables) == ["first", "outer", "inner", "shared", "outer.op", "shared", "skip"]
    assert [mutable.name for mutable in mutator.undedup_mutables][3::2] == ["outer.inner.op", "again"]


def test_a_scope_holds_what_is_inside_it():
    tree = BaseMutator(nested()).mutables
    assert [node.mutable.key for node in tree.children] == ["first", "outer", "shared", "skip"]
    outer = tree.children[1]
    assert [node.mutable.key for node in outer.children] == ["inner", "outer.op"]
    assert (tree.type(), outer.type(), outer.children[1].type()) == (None, Scope, LayerChoice)
    assert (tree.mutable, outer.mutable.name) == (None, "outer")


def test_post_order_comes_from_the_inside_out():
    tree = BaseMutator(Net(outer=Scope("outer", inner=Scope("inner", op=op("op"))))).mutables
    assert keys(tree.traverse(order="post")) == ["op", "inner", "outer"]
    assert keys(tree.traverse()) == ["outer", "inner", "op"]


def test_memo_leaves_keys_out_and_learns_those_that_were_given():
    tree, memo = BaseMutator(nested()).mutables, {"first", "shared"}
    assert keys(tree.traverse(memo=memo)) == ["outer", "inner", "outer.op", "skip"]
    assert list(tree.traverse(memo=memo)) == []


def test_another_order_is_an_assertion_error_at_once():
    with pytest.raises(AssertionError, match="order is 'pre' or 'post', got 'level'"):
        BaseMutator(nested()).mutables.traverse(order="level")


def test_add_child_gives_the_new_node():
    root = StructuredMutableTreeNode(None)
    node = root.add_child(op("op"))
    assert root.children == [node]
    assert keys(root) == ["op"]


def test_the_mutables_of_a_node_are_its_own_and_those_below():
    outer = BaseMutator(nested()).mutables.children[1]
    assert keys(outer) == ["outer", "inner", "shared", "outer.op"]


def test_a_choice_inside_a_candidate_belongs_to_the_scope_around():
    net = Scope("outer", op=LayerChoice({"cell": Scope("cell", op=op("deep")), "skip": nn.Identity()}, key="op"))
    tree = BaseMutator(net).mutables
    (outer,) = tree.children
    assert [node.mutable.key for node in outer.children] == ["op", "cell"]
    assert keys(tree) == ["outer", "op", "cell", "deep"]


def test_a_model_without_mutables_has_an_empty_tree():
    assert list(BaseMutator(nn.Linear(1, 1)).mutables) == []


def test_children_that_are_none_are_passed_over():
    net = Net(op=op("op"))
    net.register_module("nothing", None)
    assert keys(BaseMutator(net).mutables) == ["op"]


# ---- what is refused -----------------------------------------------------------------------------------------------------


def refused(net, match):
    """Nothing of the net is bound after an error."""
    with pytest.raises(BindError, match=match) as caught:
        BaseMutator(net)
    assert isinstance(caught.value, RuntimeError)
    mutables = [module for module in net.modules() if isinstance(module, LayerChoice | InputChoice | MutableScope)]
    assert all(mutable.mutator is None for mutable in mutables)


def test_a_second_mutator_is_refused_until_the_first_lets_go():
    net = nn.Sequential(op("op"))
    first = RandomMutator(net)
    with pytest.raises(RuntimeError, match="LayerChoice 'op' is decided by a RandomMutator already, expected none"):
        BaseMutator(net)
    assert net[0].mutator is first
    first.unbind()
    assert BaseMutator(net).model is net


def test_letting_go_does_not_take_the_model_from_the_next_mutator():
    net = nn.Sequential(op("op"))
    first = RandomMutator(net)
    first.unbind()
    second = RandomMutator(net)
    first.unbind()
    assert net[0].mutator is second


def test_a_part_that_is_decided_already_refuses_the_whole():
    net = Net(first=op("first"), second=op("second"))
    RandomMutator(net.second)
    with pytest.raises(BindError, match="'second' is decided by a RandomMutator already"):
        BaseMutator(net)
    assert net.first.mutator is None


def test_a_source_that_comes_later_is_refused():
    refused(
        Net(skip=InputChoice(choose_from=["late"], key="skip"), late=op("late")),
        "InputChoice 'skip' chooses from 'late', expected the key of an earlier mutable",
    )


def test_a_source_that_is_not_there_is_refused_with_the_near_ones():
    refused(
        Net(layer=op("layer1"), skip=InputChoice(choose_from=["layer2"], key="skip")),
        "chooses from 'layer2', .*did you mean 'layer1'",
    )


def test_a_choice_cannot_choose_itself():
    refused(Net(skip=InputChoice(choose_from=["skip"], key="skip")), "'skip' chooses from 'skip'")


def test_paths_enclosing_scopes_input_choices_and_no_key_are_sources():
    skip = InputChoice(choose_from=["layer", "outer", "before", InputChoice.NO_KEY, "layer"], key="skip")
    net = Net(layer=op(), before=InputChoice(1, key="before"), outer=Scope("outer", skip=skip))
    assert keys(BaseMutator(net).mutables) == ["layer", "before", "outer", "skip"]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda: LayerChoice({"linear": nn.Linear(2, 2)}, key="op"), r"\['linear', None\]"),
        (lambda: LayerChoice({"linear": nn.ReLU(), "relu": nn.ReLU()}, key="op"), "'relu'"),
        (lambda: InputChoice(2, key="op"), "InputChoice"),
        (lambda: Scope("op"), "Scope"),
    ],
    ids=["length", "names", "input choice", "scope"],
)
def test_one_key_for_different_things_is_refused_early(other, says):
    refused(Net(first=op("op"), second=other()), f"key 'op' is shared by a LayerChoice at 'first' .*{says}")


def test_one_key_for_input_choices_that_take_other_numbers_is_refused():
    refused(
        Net(one=InputChoice(2, n_chosen=1, key="skip"), two=InputChoice(2, n_chosen=2, key="skip")),
        "key 'skip' is shared by a InputChoice at 'one'",
    )


@pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
def test_a_key_that_is_the_path_of_another_mutable_is_refused(order):
    found = {"first": op("second"), "second": op()}
    refused(Net(**{name: found[name] for name in order}), "key 'second' was given to the LayerChoice at 'first'")


def test_equal_choices_share_a_key_whatever_their_candidates_are():
    net = Net(one=op("op"), two=LayerChoice({"linear": nn.Identity(), "tanh": nn.ReLU()}, key="op"))
    assert keys(BaseMutator(net).mutables) == ["op"]


def test_what_callbacks_cannot_decide_is_refused_and_fine_once_it_is_decided():
    block = OneShotMutableOP({"a": nn.Tanh(), "b": nn.ReLU()})
    net = nn.Sequential(op("op"), block)
    refused(net, "'1' is a OneShotMutableOP without a choice, which callbacks do not decide")
    block.current_choice = "a"
    assert keys(BaseMutator(net).mutables) == ["op"]


def test_a_failed_mutator_leaves_keys_that_others_rely_on_alone():
    inner = nn.Sequential(op())
    mutator = RandomMutator(inner)
    with pytest.raises(BindError):
        BaseMutator(Net(inner=inner))
    assert keys(mutator.mutables) == ["0"]


# ---- callbacks ----------------------------------------------------------------------------------------------------------


class Own(BaseMutator):
    def on_forward_layer_choice(self, mutable, *args, **kwargs):
        return [candidate(*args, **kwargs) for candidate in mutable][-1] * 2, torch.tensor([0.0, 2.0])

    def on_forward_input_choice(self, mutable, tensor_list):
        return tensor_list[0], torch.tensor([True] + [False] * (len(tensor_list) - 1))


def test_callbacks_say_what_is_computed_and_give_the_mask():
    net = op(return_mask=True)
    Own(net)
    output, mask = net(X)
    assert torch.equal(output, 2 * X.tanh())
    assert mask.tolist() == [0.0, 2.0]


def test_an_input_choice_hands_over_a_list_in_the_order_of_its_names():
    net = InputChoice(choose_from=["", "b"], key="skip")
    with pytest.raises(BindError):
        Own(net)
    net = InputChoice(choose_from=["", ""])
    Own(net)
    assert torch.equal(net([X, 2 * X]), X)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda net, mutator: net.layer(X), "BaseMutator has no on_forward_layer_choice, and 'layer' was called"),
        (lambda net, mutator: net.skip([X]), "BaseMutator has no on_forward_input_choice, and 'skip' was called"),
        (lambda net, mutator: mutator.export(), "BaseMutator has no export"),
    ],
)
def test_callbacks_that_a_mutator_does_not_have_are_named(call, says):
    net = Net(layer=op("layer"), skip=InputChoice(1, key="skip"))
    mutator = BaseMutator(net)
    with pytest.raises(NotImplementedError, match=says):
        call(net, mutator)


def test_scopes_need_no_callbacks():
    net = Scope("cell", tanh=nn.Tanh())
    BaseMutator(net)
    assert torch.equal(net(X), X.tanh())


def test_choices_made_by_callbacks_alone_are_not_exported_as_a_default():
    net = nn.Sequential(op("op"))
    Own(net)
    with pytest.raises(RuntimeError, match="'op' has no choice: a Own decides it"):
        export(net)
    assert isinstance(export(net, {"op": "tanh"})[0], nn.Tanh)


def test_an_order_is_an_error_of_the_library_too():
    with pytest.raises(ChoiceError):
        StructuredMutableTreeNode(None).traverse(order="in")
