import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from mutorch import Mutator, export
from mutorch.errors import ChoiceError, ExpressionError
from mutorch.mutables import (
    MutableValue,
    OneShotMutableOP,
    ValueChoice,
    ValueExpression,
    case,
    choice_of,
    condition,
    maximum,
    minimum,
    switch_case,
    to_float,
    to_int,
)

numbers = st.integers(-6, 6) | st.floats(-4, 4, width=16)
EXPRESSIONS = {
    "k // 2": lambda k, w: k // 2,
    "(k - 1) * w + 3": lambda k, w: (k - 1) * w + 3,
    "w / 4 % 3": lambda k, w: w / 4 % 3,
    "2 ** k - 7 // w": lambda k, w: 2**k - 7 // w,
    "-k + abs(w - 20)": lambda k, w: -k + abs(w - 20),
    "round(w * 0.3, 1)": lambda k, w: round(w * 0.3, 1),
    "k < w": lambda k, w: k < w,
    "k >= 1.5": lambda k, w: k >= 1.5,
}


class Net(nn.Module):
    """A convolution with a kernel size, a padding that follows it, and a scale that follows both."""

    def __init__(self):
        super().__init__()
        self.kernel = ValueChoice([1, 3, 5], label="kernel")
        self.padding = self.kernel // 2
        self.shape = ValueChoice([(1, 2), (2, 1)])
        self.scale = condition(self.kernel > 1, self.shape[0] * 2, to_int(self.kernel * 3.7))
        self.weight = nn.Parameter(torch.randn(3, 3, 5, 5))

    def forward(self, x):
        kernel = self.kernel.current_choice
        start = (5 - kernel) // 2
        weight = self.weight[:, :, start : start + kernel, start : start + kernel]
        x = F.conv2d(x, weight, padding=self.padding.current_choice)
        return x.repeat(1, 1, *self.shape.current_choice) * self.scale.current_choice


# ---- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_arithmetic_is_that_of_python_at_every_choice(text):
    k, w = ValueChoice([1, 3, 5], label="k"), ValueChoice([16, 24.5], label="w")
    expression = EXPRESSIONS[text](k, w)
    for kernel in k.choices:
        for width in w.choices:
            k.current_choice, w.current_choice = kernel, width
            assert repr(expression.current_choice) == repr(EXPRESSIONS[text](kernel, width))


@given(numbers, numbers)
def test_functions_follow_their_mutables(x, y):
    a = ValueChoice([x] if x == y else [x, y])
    a.current_choice = y
    assert to_int(a).current_choice == int(y)
    assert to_float(a).current_choice == float(y)
    assert maximum(a, 1).current_choice == max(y, 1)
    assert minimum(1, a).current_choice == min(y, 1)
    assert (math.floor(a).current_choice, math.ceil(a).current_choice) == (math.floor(y), math.ceil(y))
    assert case([(a < 0, "below"), (True, "above")]).current_choice == ("below" if y < 0 else "above")
    assert switch_case(a, {x: "x", y: "y"}).current_choice == "y"


def test_half_a_kernel_is_exact_where_the_older_value_rounds_to_eight():
    assert (ValueChoice([3, 5]) // 2).current_choice == 1
    assert (MutableValue([3, 5]) // 2).current_choice == 8


def test_an_expression_follows_the_choice():
    kernel = ValueChoice([3, 5, 7])
    padding = kernel // 2
    values = []
    for choice in kernel.choices:
        kernel.current_choice = choice
        values.append(padding.current_choice)
    assert values == padding.choices == [1, 2, 3]


def test_expressions_list_each_value_once_and_leave_the_choices_alone():
    a, b = ValueChoice([0, 1, 2], default=1), ValueChoice([0, 1, 2])
    assert (a + b).choices == [0, 1, 2, 3, 4]
    assert (a * 0).choices == [0]
    assert (a.current_choice, b.current_choice) == (1, 0)
    many = [ValueChoice(list(range(10))) for _ in range(6)]
    with pytest.raises(ExpressionError, match=r"1,000,000 combinations of choices, more than 100,000"):
        _ = sum(many[1:], many[0] + 0).choices


def test_strings_tuples_and_choices_of_modules_are_read():
    op = OneShotMutableOP({"conv": nn.Conv2d(2, 2, 1), "skip": nn.Identity()}, alias="op")
    shape = ValueChoice([(1, 7), (3, 3)], label="shape")
    mode = ValueChoice(["same", "valid"], label="mode")
    op.current_choice, shape.current_choice, mode.current_choice = "skip", [3, 3], "valid"
    assert choice_of(op).eq("skip").current_choice is True
    assert shape[1].current_choice == 3
    assert (shape + (1,)).current_choice == (3, 3, 1)
    assert shape.isin([(3, 3)]).current_choice
    assert (mode + "!").current_choice == "valid!"
    assert str(choice_of(op).eq("skip") & shape.ne((1, 7))) == "(op == 'skip') & (shape != (1, 7))"


def test_older_mutables_are_read_too():
    older, own = MutableValue([2, 4], alias="older"), ValueChoice([3, 5], label="own")
    for expression in (own * older, older * own, own * (older * 2) / 2):
        assert expression.current_choice == 6
    assert {type(expression) for expression in (own * older, older * own)} == {ValueExpression}
    assert choice_of(own + older).current_choice == 5


# ---- in models -------------------------------------------------------------------------------------------------------


def test_a_copied_or_unpickled_model_reads_its_own_choices():
    net = Net()
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        Mutator(copied).set_choices({"kernel": 5, "shape": [2, 1]})
        assert copied.padding.current_choice == 2
        assert copied.scale.current_choice == 4
        assert copied.padding.sources == (copied.kernel,)
    assert net.padding.current_choice == 0


def test_an_exported_model_computes_what_the_supernet_computes():
    net = Net()
    mutator = Mutator(net)
    assert mutator.space.names == ("kernel", "shape")
    x = torch.randn(2, 3, 6, 6)
    for architecture in mutator.space.grid():
        mutator.set_choices(architecture)
        assert torch.equal(export(net, architecture)(x), net(x))


def test_choices_of_one_label_are_one_decision():
    net = nn.ModuleList([ValueChoice([1, 2], label="depth"), ValueChoice([1, 2], key="depth")])
    mutator = Mutator(net)
    assert mutator.space.names == ("depth",)
    mutator.set_choices({"depth": 2})
    assert [value.current_choice for value in net] == [2, 2]


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [[False, True], [1, 2.5], [0.5, True], ["a", "b"], [(1, 7), [3, 3]], (4, 8)])
def test_numbers_mix_and_so_do_tuples_with_lists(candidates):
    assert ValueChoice(candidates).choices == list(candidates)


@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        ([], ChoiceError, "empty"),
        ([1, True], ChoiceError, "twice"),
        ([1, "a"], TypeError, "all numbers, all strings or all tuples"),
        ([(1, 2), 3], TypeError, "all numbers, all strings or all tuples"),
        ([None, 3], TypeError, "None cannot be a candidate"),
        ([object()], ValueError, "must be a plain value"),
        ("abc", TypeError, "must be a list, got str"),
        (3, TypeError, "must be a list, got int"),
    ],
)
def test_candidates_that_do_not_go_together_are_refused(candidates, error, message):
    with pytest.raises(error, match=message):
        ValueChoice(candidates)


def test_label_and_key_are_one_name():
    assert ValueChoice([1], label="a", key="a").alias == "a"
    with pytest.raises(ChoiceError, match="two words for one name, got 'a' and 'b'"):
        ValueChoice([1], label="a", key="b")


def test_a_default_is_one_of_the_candidates():
    assert ValueChoice([1, 2], default=2).default_choice == 2
    with pytest.raises(ChoiceError, match="has no choice 3; allowed: 1, 2"):
        ValueChoice([1, 2], default=3)


@pytest.mark.parametrize(
    ("use", "advice"),
    [
        (lambda v: bool(v), "truth value"),
        (lambda v: int(v // 2), r"`to_int\(...\)`"),
        (lambda v: float(v), r"`to_float\(...\)`"),
        (lambda v: range(v), "build as many as there may be"),
        (lambda v: list(v), "isin"),
        (lambda v: max(v, 3), "`maximum`"),
    ],
)
def test_a_choice_is_no_value_and_says_what_to_read(use, advice):
    with pytest.raises(ExpressionError, match=f"depth.* is decided later .*{advice}.*current_choice"):
        use(ValueChoice([2, 4], label="depth"))


def test_tensors_are_not_part_of_expressions():
    with pytest.raises(TypeError, match="unsupported operand"):
        ValueChoice([2, 4]) * torch.ones(2)
    with pytest.raises(TypeError, match="choice_of takes a mutable of a model, got Linear"):
        choice_of(nn.Linear(1, 1))
