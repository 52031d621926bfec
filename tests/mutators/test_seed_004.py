"""The examples of seed 004, run as they are written there, imports aside; and what its excerpts of source say of behaviour."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from mutorch import InputChoice, LayerChoice, MutableScope, Mutator, export
from mutorch.mutables import Mutable
from mutorch.mutators import BaseMutator, DartsMutator, RandomMutator, apply_fixed_architecture

# ---- section 3: LayerChoice -----------------------------------------------------------------------------------------------


class WithChoice(nn.Module):
    def __init__(self):
        super().__init__()
        self.op_choice = LayerChoice(OrderedDict([
            ("conv3x3", nn.Conv2d(3, 16, 128)),
            ("conv5x5", nn.Conv2d(5, 16, 128)),
            ("conv7x7", nn.Conv2d(7, 16, 128))
        ]))  # fmt: skip

    def forward(self, x):
        return self.op_choice(x)


def test_the_call_of_layer_choice_runs_as_written_and_each_convolution_takes_its_own_channels():
    net = WithChoice()
    assert net.op_choice.names == ["conv3x3", "conv5x5", "conv7x7"]
    mutator = Mutator(net)
    for name, channels in (("conv3x3", 3), ("conv5x5", 5), ("conv7x7", 7)):
        mutator.set_choices({"op_choice": name})
        x = torch.ones(1, channels, 128, 128)
        assert net(x).shape == (1, 16, 1, 1)
        assert torch.equal(export(net)(x), net(x))


# ---- section 4: InputChoice ------------------------------------------------------------------------------------------------

CHANNELS = 4


def conv3x3():
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)


def conv5x5():
    return nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2)


def max_pooling(x):
    return nn.functional.max_pool2d(x, 3, stride=1, padding=1)


# `class Cell(MutableScope): pass` and `class Net(nn.Module)` are written without a forward and without super().__init__():
# a cell without a forward cannot be called, and a module without __init__ holds no modules, in any version of torch. What is
# added stands beside what is written, in a subclass; every other line is the seed's.


class Cell(MutableScope):
    pass


class Net(nn.Module):
    def __init__(self):
        self.cell1 = Cell("cell1")
        self.cell2 = Cell("cell2")
        self.op = LayerChoice([conv3x3(), conv5x5()], key="op")
        self.input_choice = InputChoice(choose_from=["cell1", "cell2", "op", InputChoice.NO_KEY])

    def forward(self, x):
        x1 = max_pooling(self.cell1(x))
        x2 = self.cell2(x)
        x3 = self.op(x)
        x4 = torch.zeros_like(x)
        return self.input_choice([x1, x2, x3, x4])


class PassingCell(Cell):
    """What a cell computes is not written."""

    def __init__(self, key):
        super().__init__(key)
        self.op = LayerChoice({"relu": nn.ReLU(), "tanh": nn.Tanh()})

    def forward(self, x):
        return self.op(x)


class RunningNet(Net):
    """With the call of `nn.Module.__init__` that is not written either."""

    def __init__(self):
        nn.Module.__init__(self)
        super().__init__()


@pytest.fixture
def net(monkeypatch):
    monkeypatch.setitem(globals(), "Cell", PassingCell)
    torch.manual_seed(0)
    return RunningNet()


X = torch.linspace(-1, 1, CHANNELS * 25).reshape(1, CHANNELS, 5, 5)
KEYS = ["cell1", "cell1.op", "cell2", "cell2.op", "op", "input_choice"]


def test_net_as_written_is_refused_by_torch_itself_for_its_missing_super():
    with pytest.raises(AttributeError, match=r"cannot assign module before Module.__init__\(\) call"):
        Net()


def test_the_mutables_of_net_are_found_with_their_keys(net):
    mutator = BaseMutator(net)
    assert [mutable.key for mutable in mutator.mutables] == KEYS
    assert net.input_choice.choose_from == ["cell1", "cell2", "op", ""]
    assert net.input_choice.n_candidates == 4
    assert net.input_choice.n_chosen is None


@pytest.mark.parametrize(
    ("taken", "parts"),
    [
        (["cell1", "op"], (0, 2)),
        ("cell2", (1,)),
        ("", (3,)),
        (["cell1", "cell2", "op", ""], (0, 1, 2, 3)),
    ],
)
def test_net_computes_the_sum_of_what_input_choice_takes(net, taken, parts):
    Mutator(net).set_choices({"cell1.op": "relu", "cell2.op": "tanh", "op": 1, "input_choice": taken})
    candidates = [max_pooling(X.relu()), X.tanh(), net.op[1](X), torch.zeros_like(X)]
    assert torch.equal(net(X), sum(candidates[part] for part in parts))
    assert torch.equal(export(net)(X), net(X))


def test_nothing_taken_is_none_as_the_user_is_to_expect(net):
    Mutator(net).set_choices({"cell1.op": "relu", "cell2.op": "tanh", "op": 1, "input_choice": []})
    assert net(X) is None


def test_net_is_searched_exported_and_fixed_as_the_mutators_of_the_seed_do_it(net, monkeypatch):
    mutator = RandomMutator(net, seed=1)
    for _ in range(5):
        mutator.reset()
        output = net(X)
        assert output is None or output.shape == X.shape
    architecture = mutator.export()
    assert list(architecture) == [key for key in KEYS if not key.startswith("cell") or key.endswith("op")]
    mutator.unbind()
    plain = export(net, architecture)
    apply_fixed_architecture(net, architecture)
    assert plain(X) is None if net(X) is None else torch.equal(plain(X), net(X))


def test_net_is_learned_by_gradient(net):
    mutator = DartsMutator(net)
    mutator.reset()
    net(X).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in mutator.parameters())


# ---- what the text and the excerpts say ----------------------------------------------------------------------------------------


def test_a_mutable_is_an_ordinary_layer_with_the_weights_of_all_operations(net):
    assert isinstance(net.op, nn.Module)
    assert isinstance(net.op, Mutable)
    assert list(net.op.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_architecture_state_is_the_mutators_and_not_the_layers(net):
    before = set(net.state_dict())
    DartsMutator(net).reset()
    assert set(net.state_dict()) == before


def test_a_key_that_is_no_string_warns_and_is_converted():
    with pytest.warns(UserWarning, match="key 7 is no string and was converted to '7'"):
        assert LayerChoice([nn.ReLU()], key=7).key == "7"


def test_a_candidate_list_is_named_by_numbers_and_a_dict_by_its_names():
    assert LayerChoice([nn.ReLU(), nn.Tanh()]).names == ["0", "1"]
    assert LayerChoice(OrderedDict(b=nn.ReLU(), a=nn.Tanh())).names == ["b", "a"]


def test_other_containers_are_a_type_error():
    with pytest.raises(TypeError, match="takes its candidates in a list or a dict of modules, got str"):
        LayerChoice("relu")


def test_return_mask_gives_the_output_and_the_mask(net):
    for choice, given in ((LayerChoice([nn.ReLU()], return_mask=True), X), (InputChoice(1, return_mask=True), [X])):
        mutator = RandomMutator(choice)
        mutator.sample_search = lambda: {"root": [True]}
        mutator.reset()
        output, mask = choice(given)
        assert mask.tolist() == [True]
        assert output.shape == X.shape


def test_the_preconditions_of_input_choice_are_assertion_errors():
    for arguments in (
        {},
        {"n_candidates": 2, "choose_from": ["a"]},
        {"n_candidates": 0},
        {"n_candidates": 2, "n_chosen": 3},
    ):
        with pytest.raises(AssertionError):
            InputChoice(**arguments)


def test_no_key_is_the_empty_string_and_stands_for_all_inputs_without_names():
    assert InputChoice.NO_KEY == ""
    assert InputChoice(n_candidates=3).choose_from == ["", "", ""]


def test_dicts_of_inputs_are_read_by_choose_from():
    choice = InputChoice(choose_from=["b", "a"], n_chosen=1)
    mutator = RandomMutator(nn.ModuleDict({"a": LayerChoice([nn.ReLU()], key="a"), "b": Scope("b"), "choice": choice}))
    mutator.sample_search = lambda: {"choice": [True, False]}
    mutator.reset()
    assert torch.equal(choice({"a": X, "b": 2 * X}), 2 * X)


class Scope(MutableScope):
    def forward(self, x):
        return x


def test_a_scope_is_entered_before_and_left_after_its_forward_even_if_that_fails():
    class Watching(RandomMutator):
        events = []

        def enter_mutable_scope(self, mutable_scope):
            self.events.append("enter")

        def exit_mutable_scope(self, mutable_scope):
            self.events.append("exit")

    class Broken(MutableScope):
        def forward(self, x):
            Watching.events.append("forward")
            raise KeyError("broken")

    scope = Broken("scope")
    Watching(scope)
    with pytest.raises(KeyError, match="broken"):
        scope(X)
    assert Watching.events == ["enter", "forward", "exit"]


def test_layer_choices_may_be_nested_contrary_to_the_seed():
    net = nn.Sequential(LayerChoice([nn.Sequential(LayerChoice([nn.ReLU(), nn.Tanh()])), nn.Identity()]))
    mutator = Mutator(net)
    mutator.set_choices({"0": 0, "0.0.0": 1})
    assert torch.equal(export(net)(X), X.tanh())
