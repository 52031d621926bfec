"""Between masks and what an architecture file says: every form of the specification (seed 004)."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables import InputChoice, LayerChoice
from mutorch.mutators.mask_format import choice_of, decode, encode


def layer(names):
    return LayerChoice({name: nn.Identity() for name in names}, key="op")


def numbered(count):
    return LayerChoice([nn.Identity() for _ in range(count)], key="op")


NAMED, LISTED = layer(["conv", "pool", "skip"]), numbered(3)
SOURCES = InputChoice(choose_from=["l1", "l2", ""], key="skip")
TWICE = InputChoice(choose_from=["l1", "l1", ""], key="skip")


@pytest.mark.parametrize(
    ("mutable", "mask", "value"),
    [
        (NAMED, [False, True, False], "pool"),
        (NAMED, [True, False, True], ["conv", "skip"]),
        (NAMED, [False, False, False], []),
        (NAMED, [0.0, 1.0, 0.0], "pool"),
        (NAMED, [0, 1, 1], ["pool", "skip"]),
        (NAMED, torch.tensor([0, 0, 1.0]), "skip"),
        (NAMED, np.array([True, False, False]), "conv"),
        (NAMED, [0.5, 0.0, 0.25], [0.5, 0.0, 0.25]),
        (NAMED, [2.0, 0.0, 1.0], [2.0, 0.0, 1.0]),
        (LISTED, [False, True, False], 1),
        (LISTED, [True, False, True], [0, 2]),
        (LISTED, [False, False, False], []),
        (SOURCES, [True, False, True], ["l1", ""]),
        (SOURCES, [False, False, True], ""),
        (TWICE, [True, False, True], [0, 2]),
        (TWICE, [False, True, False], 1),
        (InputChoice(1, key="skip"), [True], 0),
        (InputChoice(1, key="skip"), [False], []),
        (layer(["0", "x"]), [True, False], "0"),
        (layer(["7", "9"]), [False, True], 1),
    ],
)
def test_masks_of_zeros_and_ones_become_labels_and_others_weights(mutable, mask, value):
    found = encode(mutable, mask)
    assert found == value
    assert json.loads(json.dumps(found)) == value


def test_a_listed_choice_that_lost_candidates_is_exported_by_position():
    op = numbered(3)
    del op[1]
    assert encode(op, [False, True]) == 1
    assert decode(op, 1).tolist() == decode(op, "2").tolist() == [False, True]


@pytest.mark.parametrize(
    ("mutable", "value", "mask"),
    [
        (NAMED, "pool", [False, True, False]),
        (NAMED, 1, [False, True, False]),
        (NAMED, ["skip", "conv"], [True, False, True]),
        (NAMED, ["skip", 0], [True, False, True]),
        (NAMED, [0, 2], [True, False, True]),
        (NAMED, (0, 2), [True, False, True]),
        (NAMED, [0, 0], [True, False, False]),
        (NAMED, [False, True, True], [False, True, True]),
        (NAMED, [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]),
        (NAMED, [0.25, 0.5, 0.0], [0.25, 0.5, 0.0]),
        (NAMED, [], [False, False, False]),
        (NAMED, torch.tensor(2), [False, False, True]),
        (NAMED, torch.tensor([0, 1]), [True, True, False]),
        (NAMED, torch.tensor([True, False, True]), [True, False, True]),
        (NAMED, torch.tensor([0.5, 0.0, 0.0], requires_grad=True), [0.5, 0.0, 0.0]),
        (NAMED, np.int64(1), [False, True, False]),
        (NAMED, np.array([0.0, 0.0, 1.0]), [0.0, 0.0, 1.0]),
        (NAMED, [np.int64(1)], [False, True, False]),
        (NAMED, [np.True_, np.False_, np.True_], [True, False, True]),
        (NAMED, [torch.tensor(1), torch.tensor(2)], [False, True, True]),
        (LISTED, "2", [False, False, True]),
        (SOURCES, "", [False, False, True]),
        (SOURCES, ["l1", "l2"], [True, True, False]),
        (TWICE, "", [False, False, True]),
        (TWICE, [0, 1], [True, True, False]),
    ],
    ids=str,
)
def test_every_form_of_a_choice_is_read(mutable, value, mask):
    found = decode(mutable, value)
    assert found.tolist() == mask
    assert found.dtype == (torch.bool if isinstance(mask[0], bool) else torch.float32)


def test_two_integers_are_positions_and_two_floats_are_weights():
    op = layer(["a", "b"])
    assert decode(op, [0, 1]).tolist() == [True, True]
    assert decode(op, [0.0, 1.0]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("mutable", "value", "says"),
    [
        (NAMED, "pol", "no candidate 'pol', got 'pol'; did you mean 'pool'"),
        (NAMED, 3, "no candidate 3, got 3; allowed: 0, 1, 2"),
        (NAMED, -1, "no candidate -1"),
        (NAMED, ["conv", 7], r"no candidate 7, got \['conv', 7\]"),
        (NAMED, True, "expected one bool for each, got True"),
        (NAMED, 0.5, r"expected one float for each, got 0\.5"),
        (NAMED, [False, True], r"has 3 candidates, expected one bool for each, got \[False, True\]"),
        (NAMED, [0.0, 1.0, 0.0, 0.0], "has 3 candidates, expected one float for each"),
        (NAMED, [True, 0.0, 1], "no candidate"),
        (NAMED, [True, 2], "no candidate True"),
        (NAMED, [0.5, 1], r"no candidate 0\.5"),
        (NAMED, None, "no candidate None"),
        (NAMED, {"conv": True}, "no candidate {'conv': True}"),
        (NAMED, [["conv"]], r"no candidate \['conv'\]"),
        (NAMED, torch.eye(3), "no candidate"),
        (LISTED, "3", "no candidate '3'"),
        (SOURCES, "l3", "InputChoice 'skip' has no candidate 'l3'"),
        (TWICE, "l1", "InputChoice 'skip' has no candidate 'l1'"),
    ],
    ids=str,
)
def test_what_is_no_choice_is_a_value_error_that_says_what_is_allowed(mutable, value, says):
    with pytest.raises(ValueError, match=says) as caught:
        decode(mutable, value)
    assert isinstance(caught.value, ChoiceError)
    assert f"{type(mutable).__name__} '{mutable.key}'" in str(caught.value)


@st.composite
def masks(draw):
    count = draw(st.integers(1, 5))
    entry = draw(st.sampled_from((st.booleans(), st.sampled_from((0.0, 1.0)), st.floats(0, 4, width=16))))
    mask = draw(st.lists(entry, min_size=count, max_size=count))
    kind = draw(st.sampled_from(("named", "listed", "sources", "twice")))
    match kind:
        case "named":
            return layer("abcde"[:count]), mask
        case "listed":
            return numbered(count), mask
        case "sources":
            return InputChoice(choose_from=["", *"abcd"][:count]), mask
    return InputChoice(count), mask


@given(masks())
@settings(max_examples=60)
def test_an_exported_mask_reads_back_through_json_as_the_same_mask(drawn):
    mutable, mask = drawn
    found = decode(mutable, json.loads(json.dumps(encode(mutable, mask))))
    assert [float(weight) for weight in found] == [float(weight) for weight in mask]


@given(masks())
@settings(max_examples=60)
def test_a_mask_that_is_a_choice_is_exported_as_a_choice_of_the_space(drawn):
    mutable, mask = drawn
    choice = choice_of(mutable, mask)
    if choice is not None:
        assert mutable.allows(choice)
        assert mutable.allows(encode(mutable, mask))
        number = mutable.numbers(choice)
        assert [position in number for position in range(len(mask))] == [weight == 1 for weight in mask]


def test_encoding_a_mask_of_another_length_is_an_assertion_error():
    with pytest.raises(AssertionError, match="the mask of LayerChoice 'op' must have 3 entries"):
        encode(NAMED, [True])
