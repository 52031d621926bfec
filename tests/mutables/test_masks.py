"""Masks and reductions: the table of the specification, form by form (seed 004)."""

import numpy as np
import pytest
import torch
from torch import nn

from mutorch.errors import ChoiceError, ConfigError, MaskError
from mutorch.mutables import LayerChoice
from mutorch.mutables.masks import as_mask, one_hot, reduced, select, weighed
from mutorch.mutators import MaskMutator

X = torch.ones(2, 2)


class Times(nn.Module):
    """Multiplies by a weight, and counts its calls."""

    def __init__(self, factor):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float(factor)))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.weight


class Given(MaskMutator):
    def __init__(self, model, mask):
        super().__init__(model)
        self.mask = mask

    def sample_search(self):
        return {"op": self.mask}

    sample_final = sample_search


def run(mask, reduction="sum", **kwargs):
    """The choice of three candidates (times 1, 10, 100) under a mask, and what it gives."""
    op = LayerChoice([Times(1), Times(10), Times(100)], reduction, key="op", **kwargs)
    Given(op, mask).reset()
    return op, op(X)


BOOLS, WEIGHTS = [True, False, True], [0.5, 0.0, 2.0]


@pytest.mark.parametrize(
    "mask",
    [BOOLS, np.array(BOOLS), torch.tensor(BOOLS), [np.True_, np.False_, np.True_]],
    ids=["list", "array", "tensor", "list of NumPy bools"],
)
def test_bools_take_candidates_and_do_not_scale(mask):
    op, found = run(mask)
    assert torch.equal(found, 101 * X)
    assert [candidate.calls for candidate in op] == [1, 0, 1]


@pytest.mark.parametrize(
    "mask",
    [
        WEIGHTS,
        np.array(WEIGHTS),
        np.array(WEIGHTS, dtype=np.float32),
        torch.tensor(WEIGHTS),
        torch.tensor(WEIGHTS, dtype=torch.float64),
        torch.tensor(WEIGHTS, dtype=torch.float16),
        torch.tensor(WEIGHTS, dtype=torch.bfloat16),
        [np.float32(0.5), 0, 2],
    ],
    ids=["list", "float64 array", "float32 array", "float32", "float64", "float16", "bfloat16", "mixed numbers"],
)
def test_numbers_weigh_outputs_and_zero_is_not_computed(mask):
    op, found = run(mask)
    assert torch.equal(found, 200.5 * X)
    assert found.dtype == torch.float32
    assert [candidate.calls for candidate in op] == [1, 0, 1]


@pytest.mark.parametrize("mask", [[1, 0, 1], np.array([1, 0, 1]), np.array([1, 0, 1], dtype=np.uint8)])
def test_integers_in_lists_and_arrays_are_weights(mask):
    assert torch.equal(run(mask)[1], 101 * X)


@pytest.mark.parametrize(
    "mask",
    [
        torch.tensor([1, 0, 1]),
        torch.tensor([1j, 0, 1]),
        (True, False, True),
        "101",
        None,
        {"0": True},
        [True, 0.5, 0.5],
        ["a", "b", "c"],
        [None, None, None],
        [[1.0], [1.0, 2.0], [0.0]],
        list(torch.ones(3, requires_grad=True)),
        np.array(["a", "b", "c"]),
        np.array([1j, 0, 0]),
        np.array([None, None, None]),
        range(3),
    ],
    ids=str,
)
def test_anything_else_is_a_type_error_that_names_the_choice(mask):
    with pytest.raises(TypeError, match="a mask of LayerChoice 'op' must be") as caught:
        run(mask)
    assert isinstance(caught.value, MaskError)


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        ([True], r"\(1,\)"),
        ([], r"\(0,\)"),
        (np.ones((3, 1)), r"\(3, 1\)"),
        (torch.ones(4), r"\(4,\)"),
        (torch.tensor(1.0), r"\(\)"),
    ],
)
def test_another_length_is_an_assertion_error_with_both_lengths(mask, got):
    with pytest.raises(
        AssertionError, match=f"the mask of LayerChoice 'op' must have 3 entries, one a candidate; got {got}"
    ):
        run(mask)


def test_a_tensor_is_the_mask_itself_so_that_gradients_flow():
    mask = torch.tensor(WEIGHTS, requires_grad=True)
    op, (found, given) = run(mask, return_mask=True)
    assert given is mask
    found.sum().backward()
    assert mask.grad.tolist() == [4.0, 0.0, 400.0]
    assert [p.grad is not None for p in op.parameters()] == [True, False, True]


@pytest.mark.parametrize("mask", [BOOLS, WEIGHTS])
def test_a_list_comes_back_as_a_tensor(mask):
    _, (_, given) = run(mask, return_mask=True)
    assert isinstance(given, torch.Tensor)
    assert given.tolist() == mask


def test_an_array_that_cannot_be_written_is_copied():
    array = np.array([0.5, 0.5], dtype=np.float32)
    array.flags.writeable = False
    mask = as_mask(array, 2, "op")
    mask += 1
    assert array.tolist() == [0.5, 0.5]


# ---- reductions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sum", 200.5 * X), ("mean", 100.25 * X), ("concat", torch.cat([0.5 * X, 200 * X], dim=1))],
)
def test_several_weighted_outputs_are_reduced_and_the_mean_is_over_their_number(reduction, expected):
    assert torch.equal(run(WEIGHTS, reduction)[1], expected)


def test_without_reduction_there_is_the_list_of_what_was_taken_weights_applied():
    _, found = run(WEIGHTS, "none")
    assert [one.mean().item() for one in found] == [0.5, 200.0]


@pytest.mark.parametrize(("reduction", "expected"), [("sum", None), ("mean", None), ("concat", None), ("none", [])])
@pytest.mark.parametrize("mask", [[False] * 3, [0.0] * 3])
def test_nothing_taken_gives_nothing(reduction, expected, mask):
    op, found = run(mask, reduction)
    assert found == expected
    assert [candidate.calls for candidate in op] == [0, 0, 0]


@pytest.mark.parametrize("reduction", ["sum", "mean", "concat"])
def test_a_single_one_is_given_as_it_is_with_its_weight(reduction):
    assert torch.equal(run([0.0, 0.5, 0.0], reduction)[1], 5 * X)


@pytest.mark.parametrize("reduction", ["avg", "", None, "Sum", ["sum"], 1])
def test_no_such_reduction_is_an_error_when_it_is_named(reduction):
    with pytest.raises(
        ConfigError, match="LayerChoice 'op' has no reduction .*allowed: 'sum', 'mean', 'concat', 'none'"
    ):
        LayerChoice([nn.ReLU()], reduction, key="op")
    with pytest.raises(ValueError, match="op has no reduction"):
        reduced([X], reduction, "op")


def test_sum_and_mean_of_structures_are_those_of_their_tensors():
    outputs = [(X, {"a": X}), (3 * X, {"a": X})]
    total, mean = reduced(outputs, "sum", "op"), reduced(outputs, "mean", "op")
    assert torch.equal(total[0], 4 * X)
    assert torch.equal(mean[0], 2 * X)
    assert torch.equal(mean[1]["a"], X)


def test_a_weight_takes_the_dtype_of_what_it_weighs():
    found = weighed(torch.tensor(0.5), {"half": X.half(), "label": "kept"})
    assert found["half"].dtype == torch.float16
    assert found["label"] == "kept"


def test_inputs_are_not_changed_by_reducing():
    outputs = [X.clone(), X.clone()]
    reduced(outputs, "sum", "op")
    reduced(outputs, "mean", "op")
    assert all(torch.equal(output, X) for output in outputs)


def test_what_is_selected_comes_in_order():
    runs = [lambda number=number: torch.tensor(float(number)) for number in range(4)]
    assert [float(x) for x in select(runs, one_hot([3, 1], 4))] == [1.0, 3.0]


def test_the_length_is_checked_before_anything_runs():
    op = LayerChoice([Times(1), Times(2)], key="op")
    Given(op, [True, True, True]).reset()
    with pytest.raises(ChoiceError):
        op(X)
    assert [candidate.calls for candidate in op] == [0, 0]
