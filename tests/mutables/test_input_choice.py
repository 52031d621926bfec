"""InputChoice as the specification has it: arguments, inputs, what several inputs become (seed 004)."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

from mutorch.errors import ChoiceError, FixedError, MissingInputError
from mutorch.mutables import ChosenInputs, DumpChosen, InputChoice
from mutorch.mutators import Mutator, RandomMutator
from mutorch.space import SearchSpace
from mutorch.subnet import export

A, B, C = torch.ones(2, 3), torch.full((2, 3), 2.0), torch.full((2, 3), 4.0)
INPUTS = [A, B, C]


def decided(choice, **kwargs):
    module = InputChoice(3, **kwargs)
    module.current_choice = choice
    return module


# ---- arguments -----------------------------------------------------------------------------------------------------------


def test_names_say_how_many_and_a_number_says_that_there_are_no_names():
    assert InputChoice(choose_from=["a", "b"]).n_candidates == 2
    assert InputChoice(n_candidates=2).choose_from == [InputChoice.NO_KEY] * 2 == ["", ""]
    assert InputChoice(2, ["a", "b"]).choose_from == ["a", "b"]


@pytest.mark.parametrize("sequence", [list, tuple, dict.fromkeys])
def test_names_may_be_any_ordered_collection_and_are_copied(sequence):
    given = sequence(["b", "a"])
    assert InputChoice(choose_from=given).choose_from == ["b", "a"]


def test_later_edits_of_the_callers_list_have_no_effect():
    given = ["a", "b"]
    choice = InputChoice(choose_from=given)
    given.append("c")
    assert (choice.choose_from, choice.n_candidates) == (["a", "b"], 2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "needs n_candidates or choose_from, got neither"),
        ({"n_candidates": 3, "choose_from": ["a"]}, r"n_candidates=3, expected the 1 of choose_from"),
        ({"choose_from": []}, "expected at least 1"),
        ({"n_candidates": 0}, "n_candidates=0, expected at least 1"),
        ({"n_candidates": -1}, "n_candidates=-1; expected at least 1"),
        ({"n_candidates": 2.0}, r"n_candidates=2\.0"),
        ({"n_candidates": 2, "n_chosen": 3}, "n_chosen is None or 0 to 2; got 3"),
        ({"n_candidates": 2, "n_chosen": -1}, "n_chosen is None or 0 to 2; got -1"),
        ({"n_candidates": 2, "n_chosen": 1.5}, r"n_chosen is None or 0 to 2; got 1\.5"),
        ({"n_candidates": 2, "n_chosen": True}, "n_chosen is None or 0 to 2; got True"),
        ({"choose_from": "ab"}, "as a list of keys, in order; got 'ab'"),
        ({"choose_from": {"a"}}, "as a list of keys, in order; got {'a'}"),
    ],
)
def test_arguments_that_do_not_fit_together_are_assertion_errors_that_name_the_choice(arguments, says):
    with pytest.raises(AssertionError, match=f"InputChoice 'skip' .*{says}"):
        InputChoice(key="skip", **arguments)


# ---- choices and labels ---------------------------------------------------------------------------------------------------


def test_labels_are_the_names_if_no_two_are_equal_else_positions():
    assert InputChoice(choose_from=["a", ""]).choices == ["a", ""]
    assert InputChoice(choose_from=["a", "a"]).choices == [0, 1]
    assert InputChoice(1).choices == [0]


@pytest.mark.parametrize(
    ("n_chosen", "expected"),
    [
        (0, [()]),
        (1, ["a", "b", "c"]),
        (2, [("a", "b"), ("a", "c"), ("b", "c")]),
        (3, [("a", "b", "c")]),
        (None, [(), "a", "b", "c", ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]),
    ],
)
def test_a_decision_lists_all_that_may_be_taken(n_chosen, expected):
    choice = InputChoice(choose_from=["a", "b", "c"], n_chosen=n_chosen)
    assert choice.decision_choices == expected
    assert all(map(choice.allows, expected))


def test_the_space_is_json_and_reads_back():
    space = Mutator(nn.Sequential(InputChoice(choose_from=["a", "b"]), InputChoice(3, n_chosen=2))).space
    again = SearchSpace.from_json(space.to_json())
    assert again == space
    assert [space.decode(space.encode(space.sample(seed))) == space.sample(seed) for seed in range(5)] == [True] * 5


def test_the_default_is_all_of_any_number_and_else_the_first():
    assert InputChoice(3).default_choice == (0, 1, 2)
    assert InputChoice(3, n_chosen=2).default_choice == (0, 1)
    assert InputChoice(3, n_chosen=0).default_choice == ()


def test_the_largest_of_any_number_is_all_and_the_smallest_none():
    space = Mutator(nn.Sequential(InputChoice(2))).space
    assert (space.max, space.min) == ({"0": [0, 1]}, {"0": []})


@pytest.mark.parametrize("spelled", [[2, 0], (0, 2), [0, 2.0]])
def test_the_order_in_which_inputs_are_named_does_not_matter(spelled):
    assert decided(spelled).current_choice == (0, 2)


@pytest.mark.parametrize("bad", ["z", [0, 3], [0, 0], True, [[0]], -1])
def test_inputs_that_there_are_not_or_twice_are_no_choice(bad):
    with pytest.raises(ChoiceError, match="InputChoice 'skip' has no choice"):
        decided(bad, key="skip")


@pytest.mark.parametrize("bad", [[], [0], 0, [0, 1, 2]])
def test_another_number_of_inputs_is_no_choice(bad):
    with pytest.raises(ChoiceError, match=r"it takes 2 inputs of \[0, 1, 2\]"):
        decided(bad, n_chosen=2)


def test_more_ways_than_a_space_lists_are_an_error_for_the_space_and_none_for_masks():
    net = nn.Sequential(InputChoice(30, key="skip"))
    with pytest.raises(ChoiceError, match="InputChoice 'skip' can be chosen in 1073741824 ways"):
        Mutator(net)
    mutator = RandomMutator(net)
    mutator.reset()
    assert net([A] * 30).shape == A.shape


# ---- inputs ------------------------------------------------------------------------------------------------------------


def test_a_list_is_taken_by_position():
    assert torch.equal(decided(1, n_chosen=1)(INPUTS), B)


@pytest.mark.parametrize("mapping", [dict, OrderedDict])
def test_a_dict_is_read_by_name_in_any_order_and_may_have_more(mapping):
    choice = InputChoice(choose_from=["a", "b"], n_chosen=1)
    choice.current_choice = "b"
    assert torch.equal(choice(mapping([("x", C), ("b", B), ("a", A)])), B)


def test_a_dict_feeds_a_name_that_stands_twice():
    choice = InputChoice(choose_from=["a", "b", "a"], n_chosen=2)
    choice.current_choice = [0, 2]
    assert torch.equal(choice({"a": A, "b": B}), 2 * A)


def test_a_dict_feeds_a_choice_with_nameless_inputs_by_the_empty_name():
    choice = InputChoice(choose_from=["a", ""], n_chosen=1)
    choice.current_choice = ""
    assert torch.equal(choice({"": B, "a": A}), B)


@pytest.mark.parametrize(
    "wrap", [lambda choice: choice, lambda choice: choice.chosen_module("a")], ids=["supernet", "exported"]
)
def test_a_dict_without_a_name_is_a_key_error_with_the_near_ones(wrap):
    choice = InputChoice(choose_from=["a", "layer1"], n_chosen=1, key="skip")
    choice.current_choice = "a"
    with pytest.raises(MissingInputError, match=r"\['a', 'layer1'\] and got no input 'layer1'; did you mean 'layer2'"):
        wrap(choice)({"a": A, "layer2": B})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((A, B, C), "a list or a dict of inputs, got tuple"),
        (A, "a list or a dict of inputs, got Tensor"),
        ([A, B], "3 candidates and takes one input for each, got 2"),
        ([A] * 4, "3 candidates and takes one input for each, got 4"),
    ],
)
def test_inputs_that_do_not_match_are_assertion_errors(given, says):
    with pytest.raises(AssertionError, match=says):
        decided(0, n_chosen=1, key="skip")(given)


def test_a_function_is_called_only_if_its_input_is_taken():
    calls = []

    def make(number):
        return lambda: (calls.append(number), INPUTS[number])[1]

    choice = decided([0, 2], n_chosen=2)
    given = [make(0), make(1), make(2)]
    assert torch.equal(choice(given), A + C)
    assert torch.equal(choice.chosen_module([0, 2])(given), A + C)
    assert calls == [0, 2, 0, 2]


def test_a_module_is_an_input_and_is_not_called():
    tanh = nn.Tanh()
    assert decided(0, n_chosen=1)([tanh, A, B]) is tanh


# ---- outputs ------------------------------------------------------------------------------------------------------------

TAKEN = [([], []), ([1], [B]), ([0, 2], [A, C]), ([0, 1, 2], INPUTS)]
REDUCED = {
    "sum": sum,
    "mean": lambda xs: sum(xs) / len(xs),
    "concat": lambda xs: torch.cat(xs, dim=1),
    "none": list,
}


@pytest.mark.parametrize("reduction", REDUCED)
@pytest.mark.parametrize(("labels", "taken"), TAKEN, ids=["none", "one", "two", "all"])
def test_reductions_are_those_of_the_specification_also_exported(reduction, labels, taken):
    net = nn.Sequential(InputChoice(3, reduction=reduction))
    Mutator(net).set_choices({"0": labels[0] if len(labels) == 1 else labels})
    for found in (net(INPUTS), export(net)(INPUTS)):
        if reduction == "none":
            assert len(found) == len(taken)
            assert all(map(torch.equal, found, taken))
        elif not taken:
            assert found is None
        else:
            assert torch.equal(found, taken[0] if len(taken) == 1 else REDUCED[reduction](taken))


def test_with_return_mask_the_second_of_a_pair_says_which():
    net = nn.Sequential(InputChoice(3, n_chosen=2, return_mask=True))
    mutator = Mutator(net)
    mutator.set_choices({"0": [0, 2]})
    exported, before = export(net), net(INPUTS)
    mutator.fix_choices()
    for output, mask in (before, exported(INPUTS), net(INPUTS), export(net)(INPUTS)):
        assert torch.equal(output, A + C)
        assert mask.tolist() == [True, False, True]


def test_nothing_taken_gives_a_mask_of_nothing():
    output, mask = decided([], return_mask=True)(INPUTS)
    assert output is None
    assert mask.tolist() == [False] * 3


# ---- fixing and copying ---------------------------------------------------------------------------------------------------


def test_fixed_it_goes_on_taking_all_inputs():
    choice = InputChoice(3, n_chosen=2)
    choice.fix_chosen([2, 1])
    assert torch.equal(choice(INPUTS), B + C)
    assert choice.decision_choices == [(1, 2)]
    assert choice.dump_chosen() == DumpChosen([1, 2], {"all_choices": [0, 1, 2]})


@pytest.mark.parametrize(
    "change",
    [
        lambda choice: choice.fix_chosen([0, 1]),
        lambda choice: setattr(choice, "current_choice", [0, 1]),
        lambda choice: setattr(choice, "current_choice", None),
    ],
)
def test_a_fixed_choice_does_not_change(change):
    choice = InputChoice(3, n_chosen=2)
    choice.fix_chosen([1, 2])
    with pytest.raises(FixedError, match=r"fixed to [\[(]1, 2[\])]"):
        change(choice)
    assert choice.current_choice == (1, 2)


def test_without_a_choice_there_is_nothing_to_dump():
    with pytest.raises(ChoiceError, match="InputChoice 'skip' has no current choice to dump"):
        InputChoice(2, key="skip").dump_chosen()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_keep_what_was_chosen(copied):
    choice = decided([0, 2], n_chosen=2, reduction="concat")
    again = copied(choice)
    assert torch.equal(again(INPUTS), choice(INPUTS))
    plain = copied(choice.chosen_module([0, 2]))
    assert isinstance(plain, ChosenInputs)
    assert torch.equal(plain(INPUTS), choice(INPUTS))


def test_a_model_with_inputs_that_are_proxies_is_traced():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.skip = InputChoice(2, n_chosen=1)

        def forward(self, x):
            return self.skip([x, x + 1])

    exported = export(Net(), {"skip": 1})
    assert torch.equal(torch.fx.symbolic_trace(exported)(A), A + 1)
