import copy
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mutorch import Mutator, export
from mutorch.errors import ChoiceError, DerivedError, SpaceError
from mutorch.mutables import DerivedMutable, DumpChosen, MutableValue, OneShotMutableOP, OneShotMutableValue
from mutorch.utils import make_divisible

WIDTH = MutableValue([1, 2, 3], alias="global width")
WIDTHS = {"stem": WIDTH}


class Channels(MutableValue):
    """A value with a mask, as channels have."""

    @property
    def current_mask(self):
        return torch.arange(max(self.choices)) < self.current_choice


# ---- the deriving methods --------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 12), st.integers(1, 16))
def test_derived_values_follow_their_source(one, other, ratio, divisor):
    value = MutableValue(list({one: 1, other: 1}))
    expanded, expanded_left, divided, rounded = value * ratio, ratio * value, value // ratio, value // (ratio, divisor)
    for choice in value.choices:
        value.current_choice = choice
        assert expanded.current_choice == expanded_left.current_choice == choice * ratio
        assert divided.current_choice == make_divisible(choice // ratio, 8)
        assert rounded.current_choice == make_divisible(choice // ratio, divisor)
        assert value.derive_same_mutable().current_choice == choice


@pytest.mark.parametrize(
    ("derive", "expected"),
    [
        (lambda v: v // 8, [16, 16]),
        (lambda v: v // 8.0, [16, 16]),
        (lambda v: v // (8, 3), [15, 15]),
        (lambda v: v.derive_divide_mutable(8.0), [15, 16]),
        (lambda v: v * 0.5, [60, 64]),
        (lambda v: v * 0.501, [60, 64]),
        (lambda v: (v * 2) // (3, 1), [80, 85]),
        (lambda v: v.derive_divide_mutable(MutableValue([7])), [17, 18]),
    ],
)
def test_worked_examples_of_derived_choices(derive, expected):
    value = MutableValue([120, 128])
    assert derive(value).choices == expected


def test_a_mutable_as_ratio_stays_live():
    width, ratio = MutableValue([7, 9]), MutableValue([2.5, 3.5])
    derived = width.derive_expand_mutable(ratio)
    width.current_choice, ratio.current_choice = 9, 3.5
    assert derived.current_choice == 31
    assert derived.choices == [17, 24, 22, 31]
    assert derived.source_mutables == {width, ratio}


@pytest.mark.parametrize("other", ["2", [2], None, True, 1j])
def test_values_multiply_with_numbers_only(other):
    value = MutableValue([2, 4])
    with pytest.raises(TypeError, match="unsupported operand|can't multiply"):
        value * other
    with pytest.raises(TypeError, match="unsupported operand|can't multiply"):
        other * value
    with pytest.raises(TypeError, match="unsupported operand"):
        value // other
    with pytest.raises(TypeError, match="unsupported operand"):
        value // (1, 2, 3)


def test_ratios_of_other_types_and_below_1_are_refused():
    value = MutableValue([2, 4])
    with pytest.raises(NotImplementedError, match="an expand ratio must be int, float or a mutable, got str"):
        value.derive_expand_mutable("2")
    with pytest.raises(NotImplementedError, match="a ratio must be int, float or a mutable, got bool"):
        value.derive_divide_mutable(True)
    with pytest.raises(ChoiceError, match="must be at least 1, got 0"):
        value // 0.5


def test_concatenation_adds_choices_and_joins_masks():
    first, second = Channels([1, 3]), Channels([2, 4], default_value=4)
    joined = DerivedMutable.derive_concat_mutable([first, second])
    assert joined.current_choice == 5
    assert joined.current_mask.int().tolist() == [1, 0, 0, 1, 1, 1, 1]
    nested = DerivedMutable.derive_concat_mutable([joined, first * 2])
    assert nested.current_choice == 7
    assert nested.current_mask.int().tolist() == [1, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert nested.sources == (first, second)
    with pytest.raises(TypeError, match="only mutables can be concatenated, got int"):
        DerivedMutable.derive_concat_mutable([first, 3])


def test_masks_lead_and_follow_the_choice():
    channels = Channels([2, 4])
    assert (channels * 1.5).current_mask.int().tolist() == [1, 1, 1, 0, 0, 0]
    assert (channels // (2, 1)).current_mask.int().tolist() == [1, 0]
    text = repr(channels * 3)
    assert text.startswith("DerivedMutable(current_choice=6, activated_channels=6, source_mutables={Channels(")
    assert text.endswith("is_fixed=False)")


def test_values_without_masks_have_none_when_derived():
    value = MutableValue([1, 2])
    with pytest.raises(RuntimeError, match="has no mask"):
        _ = (value * 2).current_mask
    with pytest.raises(DerivedError, match="cannot concatenate masks: MutableValue.* has none"):
        _ = DerivedMutable.derive_concat_mutable([value]).current_mask
    assert repr(value * 2) == (
        "DerivedMutable(current_choice=2, "
        "source_mutables={MutableValue(value_list=[1, 2], current_choice=1)}, is_fixed=False)"
    )


# ---- states ----------------------------------------------------------------------------------------------------------


def test_a_derived_value_decides_nothing_itself():
    value = MutableValue([1, 2])
    derived = value * 10
    assert (derived.num_choices, derived.choices, derived.dump_chosen()) == (1, [10, 20], DumpChosen(10))
    assert (value.current_choice, derived.is_fixed) == (1, False)
    derived.fix_chosen()
    derived.fix_chosen(10)
    assert not derived.is_fixed
    value.fix_chosen(2)
    assert (derived.is_fixed, derived.choices) == (True, [20])


@pytest.mark.parametrize(
    ("attribute", "given"), [("current_choice", 3), ("current_mask", torch.ones(1)), ("is_fixed", True)]
)
def test_a_derived_value_cannot_be_set(attribute, given):
    with pytest.raises(RuntimeError, match="DerivedMutable.* (follows its sources|is fixed when its sources are)"):
        setattr(MutableValue([1]) * 2, attribute, given)


def test_fixing_a_derived_value_to_something_else_is_refused():
    with pytest.raises(DerivedError, match="cannot be fixed to 3; fix its sources"):
        (MutableValue([1]) * 2).fix_chosen(3)


def test_reading_choices_restores_the_sources_when_the_function_fails():
    value = MutableValue([1, 0], alias="x")
    derived = DerivedMutable(lambda: 1 / value.current_choice)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        _ = derived.choices
    assert value.current_choice == 1


# ---- sources ---------------------------------------------------------------------------------------------------------


class Rule:
    """A callable object that holds its sources in its attributes."""

    def __init__(self, *mutables):
        self.mutables = dict.fromkeys(mutables, 2)

    def __call__(self):
        return sum(factor * mutable.current_choice for mutable, factor in self.mutables.items())

    def total(self):
        return self()


class RuleOfFunctions:
    def __init__(self, *functions):
        self.functions = functions

    def __call__(self):
        return sum(function() for function in self.functions)


def recursive(value):
    def count_down(steps=2):
        return value.current_choice * 2 if steps == 0 else count_down(steps - 1)

    return count_down


def through_default(value):
    return lambda held=value, *, factor=value: held.current_choice + factor.current_choice


def read_global():
    return WIDTH.current_choice * 2


def read_global_container():
    return WIDTHS["stem"].current_choice * 2


HOLDERS = {
    "closure": lambda value: lambda: value.current_choice * 2,
    "closure over a derived value": lambda value: (lambda derived: lambda: derived.current_choice)(value * 2),
    "closure over a list": lambda value: (lambda values: lambda: values[0].current_choice * 2)([value]),
    "closure over a function": lambda value: (lambda inner: lambda: inner() * 2)(lambda: value.current_choice),
    "default arguments": through_default,
    "partial": lambda value: partial(lambda v, factor: v.current_choice * factor, value, factor=2),
    "partial of a closure": lambda value: partial(lambda factor: value.current_choice * factor, factor=2),
    "callable object": Rule,
    "method": lambda value: Rule(value).total,
    "object that holds functions": lambda value: RuleOfFunctions(lambda: value.current_choice * 2),
    "dict of functions": lambda value: (lambda rules: lambda: rules["x"][0]())(
        {"x": [lambda: value.current_choice * 2]}
    ),
    "recursion": recursive,
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS.keys())
def test_sources_are_found_and_copies_read_the_copy(hold):
    model = nn.ModuleDict({"value": MutableValue([1, 2, 3])})
    model["derived"] = DerivedMutable(hold(model["value"]))
    assert model["derived"].sources == (model["value"],)

    copied = copy.deepcopy(model)
    assert copied["derived"].sources == (copied["value"],)
    copied["value"].current_choice = 3
    assert (model["derived"].current_choice, copied["derived"].current_choice) == (2, 6)
    model["value"].current_choice = 2
    assert (model["derived"].current_choice, copied["derived"].current_choice) == (4, 6)
    again = copy.deepcopy(copied)
    again["value"].current_choice = 1
    assert (copied["derived"].current_choice, again["derived"].current_choice) == (6, 2)


@pytest.mark.parametrize("function", [read_global, read_global_container])
def test_a_source_that_is_a_global_name_is_found_and_copied(function):
    model = nn.ModuleList([WIDTH, DerivedMutable(function)])
    copied = copy.deepcopy(model)
    copied[0].current_choice = 3
    assert model[1].sources == (WIDTH,)
    assert (model[1].current_choice, copied[1].current_choice) == (2, 6)


def test_copies_of_functions_keep_unset_variables_unset():
    def unset():
        return value.current_choice if value.num_choices else later  # noqa: F821

    value = MutableValue([1, 2])
    later = None
    del later
    copied = copy.deepcopy(nn.ModuleList([value, DerivedMutable(unset)]))
    copied[0].current_choice = 2
    assert (value.current_choice, copied[1].current_choice) == (1, 2)


def test_models_with_derived_values_pickle():
    value = OneShotMutableValue([2, 4])
    model = nn.ModuleList([value, value * 2, value // 2, value // (2, 1), DerivedMutable(Rule(value))])
    again = pickle.loads(pickle.dumps(model))
    again[0].current_choice = 2
    assert [mutable.current_choice for mutable in again] == [2, 4, 8, 1, 4]
    assert [mutable.current_choice for mutable in model] == [4, 8, 8, 2, 8]


def test_a_function_without_sources_is_an_error():
    with pytest.raises(RuntimeError, match="a derived mutable needs a source"):
        DerivedMutable(lambda: 3)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.width = MutableValue([1, 2])
        self.hidden = DerivedMutable(self.double, source_mutables=[self.width])

    def double(self):
        return self.width.current_choice * 2

    def forward(self, x):
        return x * self.hidden.current_choice


def test_a_model_can_name_its_own_sources():
    model = Named()
    copied = copy.deepcopy(model)
    Mutator(copied).set_choices({"width": 2})
    assert (model(torch.ones(())), copied(torch.ones(()))) == (2, 4)
    assert export(model, {"width": 2})(torch.ones(())) == 4


class Naming(nn.Module):
    """The natural spelling: functions that read `self`."""

    def __init__(self, spelling):
        super().__init__()
        self.other = MutableValue([5, 6])
        self.inner = nn.Module()
        self.inner.width = MutableValue([1, 2])
        self.hidden = DerivedMutable(
            self.double if spelling == "method" else lambda: self.inner.width.current_choice * 2
        )

    def double(self):
        return self.inner.width.current_choice * 2


@pytest.mark.parametrize("spelling", ["method", "lambda"])
def test_a_function_that_reads_self_has_the_sources_that_it_names(spelling):
    model = Naming(spelling)
    assert model.hidden.source_mutables == {model.inner.width}
    copied = copy.deepcopy(model)
    copied.inner.width.current_choice = 2
    assert (model.hidden.current_choice, copied.hidden.current_choice) == (2, 4)


def test_a_function_that_reads_nothing_of_the_model_it_holds_has_no_source():
    model = Named()
    with pytest.raises(DerivedError, match="or name source_mutables"):
        DerivedMutable(lambda: len(list(model.parameters())))


@pytest.mark.parametrize("error", [SpaceError, ValueError])
def test_a_named_source_must_have_choices_of_its_own(error):
    value = MutableValue([1, 2])
    for wrong in (value * 2, nn.ReLU(), 3):
        with pytest.raises(error, match="a source must be a mutable with choices of its own"):
            DerivedMutable(lambda: 1, source_mutables=[wrong])
        assert not DerivedMutable.is_source_mutable(wrong)
    assert DerivedMutable.is_source_mutable(value)


def test_a_block_of_candidates_can_be_a_source():
    op = OneShotMutableOP({"wide": nn.Linear(2, 4), "narrow": nn.Linear(2, 2)})
    width = DerivedMutable(lambda: op.candidates[op.current_choice].out_features)
    model = nn.ModuleDict({"op": op, "width": width})
    Mutator(model).set_choices({"op": "narrow"})
    assert (width.current_choice, width.choices, op.current_choice) == (2, [4, 2], "narrow")
    exported = export(model, {"op": "wide"})
    assert (exported["width"].current_choice, exported["op"].out_features) == (4, 4)
