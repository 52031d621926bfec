"""MutableScope: ordinary modules whose choices belong together (seed 004)."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mutorch.errors import ChoiceError, StateError, UndecidedError
from mutorch.mutables import InputChoice, LayerChoice, MutableScope
from mutorch.mutators import MaskMutator, Mutator, RandomMutator
from mutorch.subnet import export

X = torch.linspace(-1, 1, 4).reshape(2, 2)


class Cell(MutableScope):
    def __init__(self, key, *children):
        super().__init__(key)
        self.children_ = nn.ModuleList(children)
        self.op = LayerChoice({"linear": nn.Linear(2, 2), "tanh": nn.Tanh()})

    def forward(self, x, *, twice=False):
        for child in self.children_:
            x = child(x)
        return self.op(self.op(x) if twice else x)


class Failing(MutableScope):
    def forward(self, x, **kwargs):
        raise ZeroDivisionError("as asked")


class Noting(MaskMutator):
    def __init__(self, model):
        super().__init__(model)
        self.seen = []

    def sample_search(self):
        return {mutable.key: [False] * (len(mutable.choices) - 1) + [True] for mutable in self.choosers}

    sample_final = sample_search

    def enter_mutable_scope(self, mutable_scope):
        self.seen.append(f"enter {mutable_scope.key}")

    def exit_mutable_scope(self, mutable_scope):
        self.seen.append(f"exit {mutable_scope.key}")


def noting(net):
    mutator = Noting(net)
    mutator.reset()
    return mutator


def test_a_key_is_required():
    with pytest.raises(TypeError, match="key"):
        MutableScope()


def test_a_key_that_is_no_string_is_converted_as_everywhere():
    with pytest.warns(UserWarning, match="3 is no string and was converted to '3'"):
        scope = Cell(3)
    assert scope.key == "3"


def test_it_is_an_ordinary_module_with_any_arguments():
    net = Cell("cell")
    noting(net)
    assert torch.equal(net(X, twice=True), X.tanh().tanh())


def test_nested_scopes_are_entered_and_left_in_order():
    net = Cell("outer", Cell("a"), Cell("b"))
    mutator = noting(net)
    net(X)
    assert mutator.seen == ["enter outer", "enter a", "exit a", "enter b", "exit b", "exit outer"]


def test_scopes_are_left_also_when_one_fails_and_the_error_comes_through():
    net = Cell("outer", Cell("a"), Failing("b"))
    mutator = noting(net)
    with pytest.raises(ZeroDivisionError, match="as asked"):
        net(X)
    assert mutator.seen == ["enter outer", "enter a", "exit a", "enter b", "exit b", "exit outer"]


def test_an_unbound_scope_is_a_value_error_that_names_it_and_nothing_hides_it():
    with pytest.raises(UndecidedError, match="Cell 'cell' was called before anything decides it") as caught:
        Cell("cell")(X)
    assert caught.value.__context__ is None


def test_under_mutorchs_mutator_a_scope_is_a_plain_module():
    net = nn.Sequential(Cell("cell"))
    Mutator(net).set_choices({"0.op": "tanh"})
    assert torch.equal(net(X), X.tanh())


def test_after_unbind_a_decided_model_goes_on_computing():
    net = nn.Sequential(Cell("cell"))
    mutator = RandomMutator(net)
    Mutator(net).set_choices({"0.op": "tanh"})
    mutator.unbind()
    assert torch.equal(net(X), X.tanh())


def test_scopes_are_among_the_mutables_before_what_is_inside_and_in_no_decision():
    net = nn.Sequential(Cell("outer", Cell("inner")), InputChoice(choose_from=["outer", "inner"], key="skip"))
    mutator = RandomMutator(net)
    mutator.reset()
    keys = ["outer", "inner", "0.children_.0.op", "0.op", "skip"]
    assert [mutable.key for mutable in mutator.mutables] == keys
    assert [type(mutable) for mutable in mutator.mutables][:2] == [Cell, Cell]
    assert list(mutator.status()) == list(mutator.export()) == keys[2:]
    assert Mutator(net).space.names == tuple(keys[2:])


@pytest.mark.parametrize(
    "ask",
    [
        lambda scope: setattr(scope, "current_choice", "a"),
        lambda scope: scope.fix_chosen("a"),
        lambda scope: scope.dump_chosen(),
    ],
)
def test_a_scope_has_no_choice_of_its_own(ask):
    with pytest.raises(ChoiceError, match="Cell 'cell' is a scope and has"):
        ask(Cell("cell"))
    assert Cell("cell").choices == ()
    assert Cell("cell").current_choice is None


@pytest.mark.parametrize("with_mutator", [None, Mutator, RandomMutator])
def test_exported_it_stays_the_users_class_and_runs(with_mutator):
    net = nn.Sequential(Cell("outer", Cell("inner")))
    _ = with_mutator and with_mutator(net)
    exported = export(net, {"0.op": "tanh", "0.children_.0.op": "linear"})
    assert type(exported[0]) is Cell
    assert torch.equal(exported(X), exported[0].children_[0].op(X).tanh())
    assert exported[0].mutator is None


def test_a_part_of_an_exported_model_runs_alone():
    net = nn.Sequential(Cell("cell"))
    exported = export(net, {"0.op": "tanh"})
    assert torch.equal(exported[0](X), X.tanh())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_exported_models_with_scopes_are_copied_and_pickled(copied):
    exported = export(nn.Sequential(Cell("cell")), {"0.op": "linear"})
    again = copied(exported)
    assert torch.equal(again(X), exported(X))
    assert type(again[0]) is Cell


def test_a_failing_enter_callback_is_not_followed_by_exit():
    net = Cell("cell")
    mutator = noting(net)

    def fail(scope):
        raise StateError("not now")

    mutator.enter_mutable_scope = fail
    with pytest.raises(StateError, match="not now"):
        net(X)
    assert mutator.seen == []


def test_a_scope_inside_a_candidate_and_a_candidate_that_is_a_scope_work():
    net = nn.Sequential(LayerChoice({"cell": Cell("cell"), "skip": nn.Identity()}))
    mutator = Mutator(net)
    assert mutator.space["0.cell.op"].when == (("0", "cell"),)
    mutator.set_choices({"0": "cell", "0.cell.op": "tanh"})
    assert torch.equal(net(X), X.tanh())
    assert torch.equal(export(net)(X), X.tanh())
