import numpy as np
import pytest
import torch

from mutorch.errors import ChoiceError, SpaceError
from mutorch.space import Decision


def test_first_choice_is_the_default_unless_another_is_given():
    assert Decision("depth", (3, 2, 4)).default == 3
    assert Decision("depth", (3, 2, 4), default=4).default == 4


def test_falsy_defaults_are_kept():
    decision = Decision("layers", (2, 0, 1), default=0, largest=0, smallest=0)
    assert (decision.default, decision.largest, decision.smallest) == (0, 0, 0)


def test_numbers_order_themselves_and_other_choices_do_not():
    assert (Decision("depth", (3, 2, 4)).largest, Decision("depth", (3, 2, 4)).smallest) == (4, 2)
    op = Decision("op", ("conv", "skip"), default="skip")
    assert (op.largest, op.smallest) == ("skip", "skip")


def test_equal_numbers_find_the_choice_as_the_space_spells_it():
    canonical = Decision("width", (112, 120)).canonical(120.0)
    assert (canonical, type(canonical)) == (120, int)
    assert Decision("shape", ([192, 192], [224, 224])).canonical((224, 224)) == [224, 224]


def test_numpy_values_and_tuples_become_plain_values():
    decision = Decision("x", (np.int64(3), np.str_("a"), (1, (2, np.float32(0.5)))))
    assert decision.choices == (3, "a", [1, [2, 0.5]])
    assert [type(choice) for choice in decision.choices] == [int, str, list]


@pytest.mark.parametrize(
    ("choice", "type_name"), [({1, 2}, "set"), (torch.tensor(3), "Tensor"), (None, "NoneType"), ({"a": 1}, "dict")]
)
def test_choices_that_json_cannot_hold_are_refused(choice, type_name):
    with pytest.raises(SpaceError, match=f"must be a plain value .* of type {type_name}"):
        Decision("op", (choice,))


def test_nan_is_refused_because_it_is_never_found_again():
    with pytest.raises(SpaceError, match="equals itself, got nan"):
        Decision("ratio", (0.5, float("nan")))


@pytest.mark.parametrize("twice", [("a", "a"), (1, 1.0), ([1, 2], (1, 2)), (True, 1)])
def test_a_choice_cannot_be_listed_twice(twice):
    with pytest.raises(SpaceError, match="decision 'op' lists a choice twice"):
        Decision("op", twice)


def test_a_decision_needs_a_name_and_choices():
    with pytest.raises(SpaceError, match="must be a non-empty string, got ''"):
        Decision("", ("a",))
    with pytest.raises(SpaceError, match="must be a non-empty string, got 3"):
        Decision(3, ("a",))
    with pytest.raises(SpaceError, match="decision 'op' has no choices"):
        Decision("op", ())


@pytest.mark.parametrize("error", [ChoiceError, ValueError, AssertionError])
def test_an_unknown_choice_is_an_error_with_the_nearest_ones(error):
    with pytest.raises(error, match="decision 'op' has no choice 'conv33'; did you mean 'conv3'"):
        Decision("op", ("conv3", "skip")).index("conv33")


@pytest.mark.parametrize("name", ["default", "largest", "smallest"])
def test_an_extreme_must_be_one_of_the_choices(name):
    with pytest.raises(ChoiceError, match="has no choice 5; allowed: 2, 3"):
        Decision("depth", (2, 3), **{name: 5})


def test_unhashable_choices_are_simply_not_allowed():
    decision = Decision("op", ("a", "b"))
    assert not decision.allows({"a": 1})
    assert not decision.allows([{"a"}])
    with pytest.raises(ChoiceError, match="has no choice"):
        decision.index({"a": 1})


def test_a_dict_without_choices_is_no_decision():
    with pytest.raises(SpaceError, match="needs the key 'choices'; got \\['name'\\]"):
        Decision.from_dict({"name": "op"})
    with pytest.raises(SpaceError, match="a condition is a pair"):
        Decision.from_dict({"name": "op", "choices": ["a"], "when": [["parent"]]})


def test_one_and_one_point_zero_are_different_choices():
    assert Decision("d", (1, 2)) != Decision("d", (1.0, 2.0))
    assert Decision("d", (1, 2)) == Decision("d", [1, 2])
    assert hash(Decision("d", (1, 2))) == hash(Decision("d", [1, 2]))
    assert Decision("d", (1, 2)) != "d"


def test_a_decision_cannot_be_changed():
    with pytest.raises(AttributeError, match="cannot assign to field 'choices'"):
        Decision("d", (1, 2)).choices = (3,)
