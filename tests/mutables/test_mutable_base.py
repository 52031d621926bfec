import pytest
from torch import nn

from mutorch.errors import ChoiceError, FixedError
from mutorch.mutables import DumpChosen, MutableValue, OneShotMutableOP, OneShotMutableValue


def op():
    return OneShotMutableOP({"a": nn.ReLU(), "b": nn.GELU()})


def value():
    return MutableValue(["a", "b"])


mutables = pytest.mark.parametrize("make", [op, value, lambda: OneShotMutableValue(["a", "b"])])


@mutables
def test_a_mutable_begins_free_and_takes_choices_any_number_of_times(make):
    mutable = make()
    assert not mutable.is_fixed
    for choice in "abba":
        mutable.current_choice = choice
        assert mutable.current_choice == choice
    assert (mutable.choices, mutable.num_choices) == (["a", "b"], 2)


@mutables
def test_fixing_leaves_one_choice(make):
    mutable = make()
    mutable.fix_chosen("b")
    assert mutable.is_fixed
    assert (mutable.current_choice, mutable.choices, mutable.num_choices) == ("b", ["b"], 1)
    assert (mutable.export_chosen(), mutable.default_choice) == ("b", "b")
    assert mutable.dump_chosen() == DumpChosen("b", {"all_choices": ["b"]})


@mutables
@pytest.mark.parametrize("error", [FixedError, AttributeError, RuntimeError])
def test_fixing_twice_says_what_is_fixed(make, error):
    mutable = make()
    mutable.alias = "stem"
    mutable.fix_chosen("b")
    with pytest.raises(error, match="'stem' is already fixed to 'b'; a fixed mutable cannot change"):
        mutable.fix_chosen("b")
    for state in (True, False):
        with pytest.raises(error, match="already fixed to 'b'"):
            mutable.is_fixed = state


@mutables
def test_a_fixed_mutable_keeps_its_choice(make):
    mutable = make()
    mutable.fix_chosen("b")
    mutable.current_choice = "b"
    with pytest.raises(FixedError, match="is fixed.*got 'a'"):
        mutable.current_choice = "a"
    assert mutable.current_choice == "b"


@mutables
@pytest.mark.parametrize("error", [ChoiceError, ValueError, AssertionError])
def test_fixing_to_an_unknown_choice_changes_nothing(make, error):
    mutable = make()
    with pytest.raises(error, match="has no choice 'c'; .*allowed: 'a', 'b'"):
        mutable.fix_chosen("c")
    assert not mutable.is_fixed
    assert mutable.choices == ["a", "b"]


@mutables
@pytest.mark.parametrize("error", [ChoiceError, AssertionError])
def test_is_fixed_is_a_bool(make, error):
    mutable = make()
    with pytest.raises(error, match="must be a bool, got 1"):
        mutable.is_fixed = 1
    mutable.is_fixed = False
    assert not mutable.is_fixed


def test_a_dump_is_a_tuple_of_chosen_and_meta():
    dump = DumpChosen(chosen=[192, 192], meta={"all_choices": [[192, 192]]})
    assert DumpChosen(**dump._asdict()) == dump
    assert DumpChosen("a") == ("a", None)
    chosen, meta = DumpChosen(chosen="a")
    assert (chosen, meta) == ("a", None)
