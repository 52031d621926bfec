"""One architecture for good: from a dict or a file, by masks or in place (seed 004)."""

import json

import pytest
import torch
from torch import nn

from mutorch.errors import ArchitectureKeyError, BindError, ExportError, LoadError
from mutorch.mutables import InputChoice, LayerChoice, MutableScope
from mutorch.mutators import FixedArchitecture, Mutator, RandomMutator, apply_fixed_architecture
from mutorch.subnet import export

X = torch.linspace(-1, 1, 4).reshape(2, 2)


class Cell(MutableScope):
    def __init__(self, key):
        super().__init__(key)
        self.op = LayerChoice({"linear": nn.Linear(2, 2), "tanh": nn.Tanh()}, key=f"{key}/op")

    def forward(self, x):
        return self.op(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = Cell("cell")
        self.conv = LayerChoice([nn.Linear(2, 2), nn.Linear(2, 2, bias=False)], key="conv")
        self.skip = InputChoice(choose_from=["cell", "conv", InputChoice.NO_KEY], key="skip")

    def forward(self, x):
        return self.skip([self.cell(x), self.conv(x), x])


ARC = {"cell/op": "tanh", "conv": 1, "skip": ["cell", ""]}


def expected(net):
    return X.tanh() + X


# ---- FixedArchitecture --------------------------------------------------------------------------------------------------


def test_it_decides_as_the_architecture_says_whatever_is_reset():
    net = Net()
    mutator = FixedArchitecture(net, ARC)
    mutator.reset()
    mutator.reset()
    assert torch.equal(net(X), expected(net))
    assert mutator.status() == {"cell/op": [False, True], "conv": [False, True], "skip": [True, False, True]}


def test_its_export_is_the_architecture_any_number_of_times():
    mutator = FixedArchitecture(Net(), ARC)
    assert mutator.export() == ARC
    assert mutator.export() == ARC
    mutator.reset()
    assert mutator.export() == ARC


def test_it_computes_what_the_exported_model_computes():
    net = Net()
    FixedArchitecture(net, ARC).reset()
    assert torch.equal(net(X), export(net, ARC)(X))
    assert torch.equal(net(X), export(net)(X))


def test_before_reset_nothing_is_decided():
    net = Net()
    FixedArchitecture(net, ARC)
    with pytest.raises(ValueError, match=r"call reset\(\) first"):
        net(X)


def test_an_architecture_that_the_caller_edits_later_is_not_followed():
    net, arc = Net(), dict(ARC)
    mutator = FixedArchitecture(net, arc)
    arc["conv"] = 0
    assert mutator.export() == ARC


@pytest.mark.parametrize(
    ("arc", "error", "says"),
    [
        (
            {**ARC, "other": 1},
            RuntimeError,
            r"decides \['other'\], which the model does not have; expected \['cell/op'",
        ),
        ({**ARC, "cell": 1}, RuntimeError, r"decides \['cell'\], which the model does not have"),
        ({"conv": 1, "skip": []}, RuntimeError, r"leaves out \['cell/op'\]; expected .*got \['conv', 'skip'\]"),
        ({}, RuntimeError, r"leaves out \['cell/op', 'conv', 'skip'\]"),
        ({**ARC, "conv": 2}, ValueError, "LayerChoice 'conv' has no candidate 2"),
        ({**ARC, "cell/op": "tahn"}, ValueError, "no candidate 'tahn', .*did you mean 'tanh'"),
        ({**ARC, "skip": [True, False]}, ValueError, "InputChoice 'skip' has 3 candidates, expected one bool for each"),
    ],
)
def test_an_architecture_that_does_not_fit_is_an_error_and_binds_nothing(arc, error, says):
    net = Net()
    with pytest.raises(error, match=says):
        FixedArchitecture(net, arc)
    FixedArchitecture(net, ARC).reset()  # another one may decide
    assert torch.equal(net(X), expected(net))


def test_without_strict_unexpected_keys_are_left_out_and_missing_ones_are_not():
    assert FixedArchitecture(Net(), {**ARC, "other": 1}, strict=False).export() == ARC
    with pytest.raises(ArchitectureKeyError, match="leaves out"):
        FixedArchitecture(Net(), {"conv": 1, "skip": []}, strict=False)


# ---- in place -----------------------------------------------------------------------------------------------------------


def test_chosen_candidates_stand_in_the_place_of_choices_and_the_rest_goes():
    net = Net()
    mutator = apply_fixed_architecture(net, ARC)
    assert isinstance(net.cell.op, nn.Tanh)
    assert [name for name, _ in net.named_parameters()] == ["conv.weight"]
    assert isinstance(net.skip, InputChoice)
    assert torch.equal(net(X), expected(net))
    assert mutator.export() == ARC


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_an_architecture_may_be_a_file(kind, tmp_path):
    path = tmp_path / "arc.json"
    path.write_text(json.dumps(ARC, indent=2, sort_keys=True))
    net = Net()
    apply_fixed_architecture(net, kind(path))
    assert torch.equal(net(X), expected(net))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no architecture can be read from .*missing.json"),
        ("{", "no architecture can be read"),
        ("[1]", "got list"),
    ],
)
def test_a_file_that_is_none_is_a_load_error_and_leaves_the_model_alone(text, says, tmp_path):
    path = tmp_path / "missing.json"
    if text is not None:
        path.write_text(text)
    net = Net()
    with pytest.raises(LoadError, match=says):
        apply_fixed_architecture(net, path)
    RandomMutator(net)


@pytest.mark.parametrize("arc", [ARC, {**ARC, "conv": 7}, {}])
def test_a_model_that_has_a_mutator_is_refused_and_left_as_it_is(arc):
    net = Net()
    mutator = RandomMutator(net)
    with pytest.raises(BindError, match="decided by a RandomMutator already"):
        apply_fixed_architecture(net, arc)
    mutator.reset()
    net(X)
    assert isinstance(net.cell.op, LayerChoice)


def test_a_second_time_is_a_runtime_error():
    net = Net()
    apply_fixed_architecture(net, ARC)
    with pytest.raises(RuntimeError):
        apply_fixed_architecture(net, ARC)
    alone = nn.Sequential(LayerChoice([nn.ReLU()], key="op"))
    apply_fixed_architecture(alone, {"op": 0})
    with pytest.raises(RuntimeError, match=r"decides \['op'\], which the model does not have"):
        apply_fixed_architecture(alone, {"op": 0})


def layer(**kwargs):
    return LayerChoice({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 2)}, key="op", **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "value", "parameters"),
    [
        ({}, "b", ["0.weight", "0.bias"]),
        ({}, [0.0, 1.0, 0.0], ["0.weight", "0.bias"]),
        ({}, ["a", "b"], ["0.a.weight", "0.a.bias", "0.b.weight", "0.b.bias"]),
        ({}, [0.0, 0.5, 0.5], ["0.a.weight", "0.a.bias", "0.b.weight", "0.b.bias", "0.c.weight", "0.c.bias"]),
        ({}, [0.0, 0.5, 0.0], ["0.a.weight", "0.a.bias", "0.b.weight", "0.b.bias", "0.c.weight", "0.c.bias"]),
        ({}, [], []),
        ({"return_mask": True}, "b", ["0.b.weight", "0.b.bias"]),
        ({"reduction": "none"}, "b", ["0.b.weight", "0.b.bias"]),
    ],
    ids=["one", "one by weight", "two", "weights", "one weight", "none", "mask", "list"],
)
def test_only_what_is_left_out_for_good_is_removed_and_outputs_and_weights_stay(kwargs, value, parameters):
    def build():
        torch.manual_seed(0)
        return nn.Sequential(layer(**kwargs))

    by_masks, net = build(), build()
    FixedArchitecture(by_masks, {"op": value}).reset()
    state = net.state_dict()
    mutator = apply_fixed_architecture(net, {"op": value})
    assert [name for name, _ in net.named_parameters()] == parameters
    torch.testing.assert_close(net(X), by_masks(X), rtol=0, atol=0)
    again = build()
    apply_fixed_architecture(again, {"op": value})
    again.load_state_dict(mutator.carry_over(state))
    torch.testing.assert_close(again(X), by_masks(X), rtol=0, atol=0)


def test_a_choice_at_two_places_is_replaced_at_both():
    shared = LayerChoice({"linear": nn.Linear(2, 2), "relu": nn.ReLU()}, key="op")
    net = nn.Sequential(shared, nn.Tanh(), shared)
    state = net.state_dict()
    mutator = apply_fixed_architecture(net, {"op": "linear"})
    assert net[0] is net[2]
    assert isinstance(net[0], nn.Linear)
    assert list(mutator.carry_over(state)) == list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_weights_carry_over_into_a_block_that_stands_at_two_places():
    block = nn.Sequential(LayerChoice({"linear": nn.Linear(2, 2), "relu": nn.ReLU()}, key="op"))
    net = nn.ModuleDict({"one": block, "two": nn.Sequential(block)})
    state = net.state_dict()
    mutator = apply_fixed_architecture(net, {"op": "linear"})
    net.load_state_dict(mutator.carry_over(state))


def test_choices_inside_candidates_are_replaced_too_and_weights_carry_over():
    def build():
        inner = LayerChoice({"b": nn.Sequential(nn.Linear(2, 2)), "c": nn.Identity()}, key="inner")
        direct = LayerChoice({"b": nn.ModuleDict({"b": nn.Linear(2, 2)}), "c": nn.Identity()}, key="direct")
        return nn.ModuleDict(
            {
                "net": LayerChoice({"a": nn.Sequential(inner, nn.Linear(2, 2)), "c": nn.Identity()}, key="outer"),
                "deep": LayerChoice({"b": direct, "c": nn.Linear(2, 2)}, key="around"),
            }
        )

    arc = {"outer": "a", "inner": "b", "around": "b", "direct": "b"}
    net, other = build(), build()
    state = net.state_dict()
    mutator = apply_fixed_architecture(net, arc)
    carried = mutator.carry_over(state)
    assert list(carried) == list(net.state_dict())
    assert [key for key in carried if key.startswith("deep")] == ["deep.b.weight", "deep.b.bias"]
    apply_fixed_architecture(other, arc)
    other.load_state_dict(carried)
    assert torch.equal(other["net"](X), net["net"](X))


def test_a_choice_that_is_the_whole_model_stays_and_loses_the_rest():
    net = LayerChoice({"linear": nn.Linear(2, 2), "tanh": nn.Tanh()})
    state = net.state_dict()
    mutator = apply_fixed_architecture(net, {"root": "tanh"})
    assert torch.equal(net(X), X.tanh())
    assert list(net.parameters()) == []
    assert mutator.carry_over(state) == {}


def test_names_that_a_module_cannot_hold_carry_over():
    net = nn.Sequential(LayerChoice({"forward": nn.Linear(2, 2), "a.b": nn.Linear(2, 2)}, key="op"))
    state = net.state_dict()
    mutator = apply_fixed_architecture(net, {"op": "forward"})
    assert list(mutator.carry_over(state)) == ["0.weight", "0.bias"]


def test_what_is_left_is_searchable_without_what_was_removed():
    net = nn.Sequential(layer(return_mask=True), InputChoice(2, key="skip"))
    apply_fixed_architecture(net, {"op": ["a", "b"], "skip": [0]})
    mutator = Mutator(net)
    assert list(mutator.space["op"].choices) == ["a", "b"]
    mutator.set_choices({"op": "b", "skip": [0, 1]})
    output, mask = net[0](X)
    assert torch.equal(output, net[0]["b"](X))
    assert mask.tolist() == [False, True, False]


def test_a_choice_of_nothing_cannot_be_exported_and_says_so():
    net = nn.Sequential(layer(), InputChoice(2, key="skip"))
    apply_fixed_architecture(net, {"op": [], "skip": [0]})
    with pytest.raises(ExportError, match=r"LayerChoice with choices \['a', 'b', 'c'\] takes none of them"):
        export(net)


def test_an_architecture_as_the_older_documentation_shows_it_is_read():
    names = [f"conv{size}x{size}" for size in (1, 3, 5)]
    net = nn.Sequential(
        LayerChoice({name: nn.Identity() for name in names}, key="LayerChoice1"),
        LayerChoice([nn.Identity() for _ in range(8)], key="LayerChoice2"),
        *(MutableScopeOfNothing(name) for name in ("l1", "l2", "l3")),
        InputChoice(choose_from=["l1", "l2", "l3"], key="InputChoice3"),
        InputChoice(3, key="InputChoice4"),
        InputChoice(3, key="InputChoice5"),
    )
    text = """{"LayerChoice1": "conv5x5", "LayerChoice2": 6, "InputChoice3": ["l1", "l3"], "InputChoice4": [1, 2],
              "InputChoice5": [false, true, false]}"""
    mutator = FixedArchitecture(net, json.loads(text))
    mutator.reset()
    assert mutator.status() == {
        "LayerChoice1": [False, False, True],
        "LayerChoice2": [number == 6 for number in range(8)],
        "InputChoice3": [True, False, True],
        "InputChoice4": [False, True, True],
        "InputChoice5": [False, True, False],
    }
    assert mutator.export() == {**json.loads(text), "InputChoice5": 1}


class MutableScopeOfNothing(MutableScope):
    def forward(self, x):
        return x
