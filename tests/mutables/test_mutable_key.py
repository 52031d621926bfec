"""Keys: which decision a mutable belongs to, and where a mutator finds it (seed 004)."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn

from mutorch.errors import StateError, UndecidedError
from mutorch.mutables import InputChoice, LayerChoice, Mutable, MutableScope
from mutorch.mutators import Mutator, RandomMutator
from mutorch.subnet import export

X = torch.linspace(-1, 1, 4).reshape(2, 2)


def choice(**kwargs):
    return LayerChoice({"relu": nn.ReLU(), "linear": nn.Linear(2, 2)}, **kwargs)


class Cell(MutableScope):
    def __init__(self, key):
        super().__init__(key)
        self.op = choice()

    def forward(self, x):
        return self.op(x)


def test_a_string_key_is_taken_as_it_is():
    assert choice(key="any key, even this.one").key == "any key, even this.one"


@pytest.mark.parametrize("key", [3, 2.5, ("a", 1)])
def test_another_key_becomes_a_string_with_one_warning_at_the_callers_line(key):
    with pytest.warns(UserWarning, match=r"is no string and was converted to") as caught:
        found = LayerChoice([nn.ReLU()], key=key)
    assert found.key == str(key)
    assert [warning.filename for warning in caught] == [__file__]


def test_without_a_key_there_is_none_until_a_mutator_found_the_module():
    op = choice()
    assert (op.key, op.name) == (None, None)
    net = nn.Sequential(nn.Sequential(op))
    RandomMutator(net)
    assert (op.key, op.name) == ("0.0", "0.0")


def test_mutorchs_own_mutator_gives_keys_too():
    op = choice()
    Mutator(nn.Sequential(op))
    assert (op.key, op.name) == ("0", "0")


def test_a_given_key_stays_and_the_name_is_the_path():
    op = choice(key="op")
    assert op.name == "op"
    RandomMutator(nn.Sequential(nn.Identity(), op))
    assert (op.key, op.name) == ("op", "1")


def test_a_mutable_that_is_the_whole_model_has_an_empty_name_and_the_key_root():
    op = choice()
    mutator = RandomMutator(op)
    assert (op.key, op.name) == ("root", "")
    assert list(mutator.export()) == ["root"]


def test_a_model_that_is_built_again_has_the_same_keys_and_reads_what_the_first_one_exported():
    def build():
        return nn.Sequential(choice(), Cell("cell"), InputChoice(3))

    keys = [[mutable.key for mutable in RandomMutator(net).mutables] for net in (build(), build(), build())]
    assert keys[0] == keys[1] == keys[2] == ["0", "cell", "1.op", "2"]


def test_the_key_cannot_be_set():
    with pytest.raises(AttributeError):
        choice(key="op").key = "other"


def test_an_object_at_two_places_is_one_mutable_with_the_first_path_as_its_name():
    op = choice()
    mutator = RandomMutator(nn.Sequential(op, nn.Identity(), op))
    assert [mutable.name for mutable in mutator.undedup_mutables] == ["0"]


def test_keys_stay_while_a_mutator_decides_although_the_model_is_put_into_another():
    net = nn.Sequential(choice())
    mutator = RandomMutator(net)
    mutator.reset()
    status = mutator.status()
    around = nn.ModuleDict({"inner": net})
    Mutator(around)
    assert [mutable.key for mutable in mutator.mutables] == ["0"]
    mutator.reset()
    assert list(mutator.status()) == list(status)
    net(X)


def test_keys_are_the_new_paths_after_the_mutator_let_go():
    net = nn.Sequential(choice())
    RandomMutator(net).unbind()
    mutator = RandomMutator(nn.ModuleDict({"inner": net}))
    assert [mutable.key for mutable in mutator.mutables] == ["inner.0"]


# ---- the mutator of a mutable ------------------------------------------------------------------------------------------


def test_the_mutator_is_no_part_of_the_model():
    net = nn.Sequential(choice())
    before = list(net.state_dict()), len(list(net.modules())), len(list(net.parameters()))
    mutator = RandomMutator(net)
    assert net[0].mutator is mutator
    assert (list(net.state_dict()), len(list(net.modules())), len(list(net.parameters()))) == before


def test_a_second_mutator_is_refused_and_the_first_stays():
    op = choice(key="op")
    first = RandomMutator(nn.Sequential(op))
    with pytest.raises(StateError, match="LayerChoice 'op' is decided by a RandomMutator already"):
        op.set_mutator(object())
    assert op.mutator is first


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_leaves_the_mutator_behind_and_can_have_another(copied):
    net = nn.Sequential(choice(key="op"), Cell("cell"))
    mutator = RandomMutator(net)
    mutator.reset()
    again = copied(net)
    assert [module.mutator for module in again.modules() if isinstance(module, Mutable)] == [None, None, None]
    assert net[0].mutator is mutator
    with pytest.raises(UndecidedError):
        again(X)
    other = RandomMutator(again, seed=5)
    other.reset()
    again(X)


@pytest.mark.parametrize(
    ("mutable", "inputs"),
    [(choice(key="op"), X), (InputChoice(1, key="op"), [X]), (Cell("op"), X)],
    ids=["layer", "input", "scope"],
)
def test_a_mutable_that_nothing_decides_says_so_by_its_key(mutable, inputs):
    with pytest.raises(ValueError, match=f"{type(mutable).__name__} 'op' was called before anything decides it"):
        mutable(inputs)


def test_an_undecided_mutable_without_a_key_is_named_by_its_class():
    with pytest.raises(UndecidedError, match=r"LayerChoice \(no key yet\) was called before anything decides it"):
        choice()(X)


def test_after_unbind_it_is_undecided_again():
    net = nn.Sequential(choice(key="op"))
    mutator = RandomMutator(net)
    mutator.reset()
    net(X)
    mutator.unbind()
    with pytest.raises(UndecidedError, match="'op'"):
        net(X)


# ---- who decided last ------------------------------------------------------------------------------------------------


def test_who_decided_last_is_who_counts():
    net = nn.Sequential(choice(key="op"))
    masks = RandomMutator(net)
    masks.sample_search = lambda: {"op": [True, False]}
    choices = Mutator(net)
    masks.reset()
    assert torch.equal(net(X), X.relu())
    choices.set_choices({"op": "linear"})
    assert torch.equal(net(X), net[0]["linear"](X))
    masks.reset()
    assert torch.equal(net(X), X.relu())
    choices.prepare_arch_params()
    assert not torch.equal(net(X), X.relu())
    masks.reset()
    assert torch.equal(net(X), X.relu())
    assert choices.current_choices == {"op": "relu"}


def test_a_choice_by_mask_is_the_choice_that_export_takes():
    net = nn.Sequential(choice(key="op"))
    masks = RandomMutator(net)
    masks.sample_search = lambda: {"op": [False, True]}
    masks.reset()
    assert isinstance(export(net)[0], nn.Linear)


def test_inside_at_the_architecture_counts_and_afterwards_what_the_masks_say():
    net = nn.Sequential(choice(key="op"))
    masks = RandomMutator(net)
    masks.sample_search = lambda: {"op": [0.5, 0.5]}
    choices = Mutator(net)
    masks.reset()
    mixed = net(X)
    with choices.at({"op": "relu"}):
        assert torch.equal(net(X), X.relu())
    assert torch.equal(net(X), mixed)


def test_mutables_warn_of_nothing_when_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = nn.Sequential(choice(key="op"), Cell("cell"))
        RandomMutator(net).reset()
        net(X)


@pytest.mark.parametrize("make", [choice, lambda **kwargs: InputChoice(2, **kwargs)], ids=["layer", "input"])
def test_a_key_may_be_called_label_but_not_be_two_things(make):
    assert make(label="op").key == make(key="op", label="op").key == "op"
    with pytest.raises(ValueError, match="key and label name one thing, .*got 'op' and 'other'"):
        make(key="op", label="other")
