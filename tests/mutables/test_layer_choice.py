"""LayerChoice as the specification has it: candidates, the container protocol, forward (seed 004)."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from mutorch.errors import CandidateError, ChoiceError, FixedError, MissingCandidateError, UndecidedError
from mutorch.mutables import DumpChosen, LayerChoice
from mutorch.mutators import Mutator, RandomMutator
from mutorch.subnet import export

X = torch.linspace(-1, 1, 4).reshape(2, 2)


def named(**kwargs):
    return LayerChoice({"relu": nn.ReLU(), "tanh": nn.Tanh(), "linear": nn.Linear(2, 2)}, **kwargs)


def listed(**kwargs):
    return LayerChoice([nn.ReLU(), nn.Tanh(), nn.Sigmoid()], **kwargs)


# ---- construction --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", [list, tuple, nn.ModuleList])
def test_candidates_in_a_sequence_are_named_by_their_numbers(container):
    op = LayerChoice(container([nn.ReLU(), nn.Tanh()]))
    assert op.names == ["0", "1"]
    assert list(dict(op.named_children())) == ["0", "1"]
    assert op.choices == [0, 1]


@pytest.mark.parametrize("container", [dict, OrderedDict, nn.ModuleDict])
def test_candidates_in_a_mapping_keep_names_and_order(container):
    op = LayerChoice(container([("z", nn.ReLU()), ("a", nn.Tanh())]))
    assert op.names == op.choices == ["z", "a"]
    assert list(dict(op.named_children())) == ["z", "a"]


def test_parameters_are_named_by_choice_and_candidate():
    net = nn.Sequential(OrderedDict(conv1=LayerChoice([nn.Linear(1, 1), nn.Linear(1, 1)]), conv2=named()))
    assert [*net.state_dict()] == [
        *(
            "conv1.0.weight",
            "conv1.0.bias",
            "conv1.1.weight",
            "conv1.1.bias",
            "conv2.linear.weight",
            "conv2.linear.bias",
        ),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "length",
        "reduction",
        "return_mask",
        "_key",
        "key",
        "names",
        "forward",
        "choices",
        "name",
        "training",
        "",
        "a.b",
        ".",
    ],
)
def test_any_name_works_also_one_that_a_module_cannot_have(name):
    net = nn.Sequential(LayerChoice({name: nn.Linear(2, 2), "other": nn.Identity()}))
    op, mutator = net[0], Mutator(net)
    assert op.names == op.choices == [name, "other"]
    mutator.set_choices({"0": name})
    assert torch.equal(net(X), op[name](X))
    assert torch.equal(export(net)(X), net(X))
    assert len(net.state_dict()) == 2
    again = nn.Sequential(LayerChoice({name: nn.Linear(2, 2), "other": nn.Identity()}))
    again.load_state_dict(net.state_dict())


def test_names_that_differ_only_by_what_a_module_cannot_hold_stay_apart():
    op = LayerChoice({"a.b": nn.Linear(1, 1), "a_b": nn.Linear(1, 1), "a_b_": nn.Linear(1, 1)})
    assert len(dict(op.named_children())) == 3
    assert len({id(op[name]) for name in op.names}) == 3


def test_the_same_module_twice_counts_twice_and_is_one_child():
    layer = nn.Linear(2, 2)
    op = LayerChoice([layer, layer])
    assert len(op) == len(list(op)) == 2
    assert list(op.children()) == [layer]


def test_one_candidate_is_enough():
    net = nn.Sequential(LayerChoice([nn.ReLU()]))
    assert Mutator(net).space.default == {"0": 0}
    assert isinstance(export(net)[0], nn.ReLU)


def test_a_sequential_is_one_module_and_no_list_of_candidates():
    with pytest.raises(CandidateError, match="in a list or a dict of modules, got Sequential"):
        LayerChoice(nn.Sequential(nn.ReLU(), nn.Tanh()))


def test_a_list_of_candidates_that_the_caller_edits_later_is_not_followed():
    given = [nn.ReLU(), nn.Tanh()]
    op = LayerChoice(given)
    given.append(nn.Sigmoid())
    assert len(op) == 2


# ---- labels -----------------------------------------------------------------------------------------------------------


def test_labels_are_names_unless_all_of_them_are_numbers():
    assert LayerChoice({"0": nn.ReLU(), "x": nn.ReLU()}).choices == ["0", "x"]
    assert LayerChoice({"10": nn.ReLU(), "3": nn.ReLU()}).choices == [0, 1]


def test_after_del_of_a_listed_candidate_labels_are_positions_and_names_stay():
    op = listed()
    del op[1]
    assert op.names == ["0", "2"]
    assert op.choices == [0, 1]


def test_a_position_may_be_given_by_its_name_and_by_an_equal_number():
    op = listed()
    op.current_choice = "2"
    assert op.current_choice == 2
    op.current_choice = 1.0
    assert repr(op.current_choice) == "1"


@pytest.mark.parametrize("bad", ["gelu", 0, True, ["relu"], {}, None.__class__])
def test_no_such_choice_is_an_error_that_lists_the_choices(bad):
    op = named(key="act")
    with pytest.raises(ChoiceError, match="LayerChoice 'act' has no choice .*'relu', 'tanh', 'linear'"):
        op.current_choice = bad
    assert op.current_choice is None


# ---- as a container -----------------------------------------------------------------------------------------------------


def test_it_is_read_like_a_list_and_like_a_dict():
    modules = [nn.ReLU(), nn.Tanh(), nn.Sigmoid()]
    op = LayerChoice(dict(zip("abc", modules, strict=True)))
    assert len(op) == 3
    assert list(op) == modules
    assert op[0] is op[-3] is op["a"] is modules[0]
    assert op[1:] == modules[1:]
    assert op[::-2] == modules[::-2]
    assert "a" in op
    assert "z" not in op
    assert modules[1] in op
    assert nn.Tanh() not in op


@pytest.mark.parametrize("index", [3, -4])
def test_a_position_out_of_range_is_an_index_error(index):
    with pytest.raises(IndexError, match=f"LayerChoice 'op' has 3 candidates, got index {index}"):
        listed(key="op")[index]


def test_an_unknown_name_is_a_key_error_with_the_near_ones():
    with pytest.raises(MissingCandidateError, match="has no candidate 'rellu'; did you mean 'relu'"):
        named()["rellu"]


def test_a_candidate_is_replaced_under_its_name():
    net = nn.Sequential(named())
    mutator = Mutator(net)
    mutator.set_choices({"0": "tanh"})
    new = nn.Sigmoid()
    net[0]["tanh"] = new
    assert net[0].names == ["relu", "tanh", "linear"]
    assert torch.equal(net(X), X.sigmoid())
    net[0][-1] = nn.Identity()
    assert list(net.parameters()) == []


@pytest.mark.parametrize(
    ("index", "error"),
    [(5, IndexError), ("new", KeyError), (slice(0, 1), TypeError)],
    ids=["out of range", "new", "slice"],
)
def test_nothing_can_be_added_and_slices_are_not_assigned(index, error):
    op = named()
    with pytest.raises(error):
        op[index] = nn.ReLU()
    assert op.names == ["relu", "tanh", "linear"]
    assert len(dict(op.named_children())) == 3


def test_only_modules_replace_candidates():
    op = named(key="act")
    with pytest.raises(TypeError, match="candidate 'relu' of LayerChoice 'act' must be a module, got function"):
        op["relu"] = named


@pytest.mark.parametrize(
    ("index", "left"),
    [
        (0, ["tanh", "linear"]),
        (-1, ["relu", "tanh"]),
        ("tanh", ["relu", "linear"]),
        (slice(0, 2), ["linear"]),
        (slice(0, 0), ["relu", "tanh", "linear"]),
    ],
)
def test_candidates_are_removed_by_position_name_and_slice(index, left):
    op = named()
    del op[index]
    assert op.names == op.choices == left
    assert list(dict(op.named_children())) == left


@pytest.mark.parametrize(("index", "error"), [("gelu", ValueError), (7, IndexError), (slice(None), ValueError)])
def test_what_is_not_there_or_all_there_is_cannot_be_removed(index, error):
    op = named()
    with pytest.raises(error):
        del op[index]
    assert op.names == ["relu", "tanh", "linear"]


def test_removing_a_candidate_before_it_leaves_the_chosen_one_chosen():
    net = nn.Sequential(listed())
    Mutator(net).set_choices({"0": 1})
    before = net(X)
    del net[0][0]
    assert net[0].current_choice == 0
    assert torch.equal(net(X), before)


def test_removing_the_chosen_candidate_leaves_it_undecided():
    op = listed()
    op.current_choice = 1
    del op[1]
    assert op.current_choice is None
    with pytest.raises(UndecidedError):
        op(X)


def test_a_mutator_made_after_removal_has_the_smaller_space():
    net = nn.Sequential(named())
    del net[0]["relu"]
    assert Mutator(net).space.names == ("0",)
    assert list(Mutator(net).space["0"].choices) == ["tanh", "linear"]


# ---- forward ---------------------------------------------------------------------------------------------------------


class Wide(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x, y=0, *, scale=1):
        return {"out": (x + y) * scale * self.factor, "all": [x, y]}


def test_any_arguments_go_to_the_candidate_and_any_output_comes_back():
    op = LayerChoice([Wide(1), Wide(2)])
    op.current_choice = 1
    found = op(X, 1, scale=3)
    assert torch.equal(found["out"], (X + 1) * 6)
    assert found["all"][1] == 1


def test_arguments_go_through_masks_too_and_outputs_are_added_entry_by_entry():
    net = LayerChoice([Wide(1), Wide(2)], key="op")
    mutator = RandomMutator(net)
    mutator.sample_search = lambda: {"op": [1.0, 0.5]}
    mutator.reset()
    assert torch.equal(net(X, y=X, scale=2)["out"], (2 * X) * 2 * (1 + 2 * 0.5))


def test_only_the_chosen_candidate_computes():
    net = nn.Sequential(LayerChoice({"norm": nn.BatchNorm1d(2), "linear": nn.Linear(2, 2)}))
    Mutator(net).set_choices({"0": "linear"})
    net(X).sum().backward()
    assert net[0]["norm"].num_batches_tracked == 0
    assert net[0]["norm"].weight.grad is None
    assert net[0]["linear"].weight.grad is not None


@pytest.mark.parametrize("reduction", ["sum", "mean", "concat"])
def test_one_candidate_is_given_as_it_is(reduction):
    op = named(reduction=reduction)
    op.current_choice = "tanh"
    assert torch.equal(op(X), X.tanh())


def test_without_reduction_the_output_is_a_list_of_one():
    op = named(reduction="none")
    op.current_choice = "tanh"
    (found,) = op(X)
    assert torch.equal(found, X.tanh())


def test_with_return_mask_a_pair_comes_back_chosen_fixed_and_exported_alike():
    net = nn.Sequential(named(return_mask=True))
    mutator = Mutator(net)
    mutator.set_choices({"0": "tanh"})
    exported = export(net)
    chosen = net(X)
    mutator.fix_choices()
    for output, mask in (chosen, exported(X), net(X), export(net)(X)):
        assert torch.equal(output, X.tanh())
        assert mask.tolist() == [False, True, False]


# ---- fixing -----------------------------------------------------------------------------------------------------------


def test_a_fixed_choice_keeps_one_candidate_and_its_label():
    op = listed()
    op.fix_chosen(2)
    assert (op.is_fixed, op.choices, op.names, op.current_choice) == (True, [2], ["2"], 2)
    assert list(dict(op.named_children())) == ["2"]
    assert torch.equal(op(X), X.sigmoid())
    assert op.dump_chosen() == DumpChosen(2, {"all_choices": [2]})


@pytest.mark.parametrize("change", [lambda op: op.fix_chosen("relu"), lambda op: setattr(op, "current_choice", "tanh")])
def test_a_fixed_choice_does_not_change(change):
    op = named(key="act")
    op.fix_chosen("relu")
    with pytest.raises(FixedError, match="'relu'"):
        change(op)


def test_fixing_to_no_candidate_removes_nothing():
    op = named()
    with pytest.raises(ChoiceError, match="'gelu'"):
        op.fix_chosen("gelu")
    assert len(op) == 3
    assert not op.is_fixed


def test_without_a_choice_there_is_nothing_to_dump():
    with pytest.raises(ChoiceError, match=r"LayerChoice 'act' has no current choice to dump; choices: \['relu'"):
        named(key="act").dump_chosen()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda op: pickle.loads(pickle.dumps(op))])
def test_a_copy_has_the_same_choice_and_candidates_of_its_own(copied):
    op = named()
    op.current_choice = "linear"
    again = copied(op)
    assert again.current_choice == "linear"
    assert again["linear"] is not op["linear"]
    assert torch.equal(again(X), op(X))
    again.current_choice = "relu"
    assert op.current_choice == "linear"


# ---- nested, dropped ----------------------------------------------------------------------------------------------------


def test_a_choice_inside_a_candidate_matters_only_there():
    net = nn.Sequential(LayerChoice({"inner": nn.Sequential(listed()), "skip": nn.Identity()}))
    mutator = Mutator(net)
    assert mutator.space.names == ("0", "0.inner.0")
    assert mutator.space["0.inner.0"].when == (("0", "inner"),)
    mutator.set_choices({"0": "inner", "0.inner.0": 1})
    assert torch.equal(net(X), X.tanh())


def test_a_dropped_candidate_cannot_be_chosen_and_the_space_does_not_list_it():
    net = nn.Sequential(named())
    net[0].drop(["relu"])
    assert net[0].names == ["relu", "tanh", "linear"]
    with pytest.raises(ChoiceError, match="has lost its candidate 'relu'"):
        net[0].current_choice = "relu"
    assert list(Mutator(net).space["0"].choices) == ["tanh", "linear"]
