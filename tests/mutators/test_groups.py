import pytest
import torch
from torch import nn

from mutorch import Mutator, export
from mutorch.errors import SpaceError, StateError
from mutorch.mutables import (
    DerivedMutable,
    MutableChannelContainer,
    MutableValue,
    OneShotMutableChannel,
    OneShotMutableOP,
    OneShotMutableValue,
    SequentialMutableChannel,
    SimpleMutableChannel,
)
from mutorch.mutators import find_places, group
from mutorch.subnet import convert_fix_subnet, export_fix_subnet, load_fix_subnet


def op(*names, alias=None):
    return OneShotMutableOP({name: nn.Identity() for name in names or ("a", "b")}, alias=alias)


def names(model, **kwargs):
    return group(model, **kwargs)[0].names


# ---- names -----------------------------------------------------------------------------------------------------------


def test_decisions_are_named_by_path_or_alias_in_order_of_appearance():
    model = nn.ModuleDict({"stem": nn.Sequential(op()), "depth": MutableValue([1, 2], alias="d"), "tail": op()})
    model["last"] = MutableValue([1, 2], alias="d")
    space, groups = group(model)
    assert space.names == ("stem.0", "d", "tail")
    assert [len(mutables) for mutables in groups.values()] == [1, 2, 1]
    assert [place.name for place in find_places(model)] == ["stem.0", "d", "tail", "d"]


def test_a_model_that_is_itself_a_mutable_is_called_root():
    inner = op("x", "y")
    model = OneShotMutableOP({"a": inner, "b": nn.Tanh()})
    mutator = Mutator(model)
    assert mutator.space.names == ("root", "_candidates.a")
    assert mutator.space["_candidates.a"].when == (("root", "a"),)
    x = torch.tensor([0.5])
    assert torch.equal(export(model, {"root": "b", "_candidates.a": "x"})(x), x.tanh())
    assert names(OneShotMutableOP({"a": inner}, alias="net")) == ("net", "_candidates.a")


def test_a_mutable_at_two_places_is_one_decision():
    shared = op()
    space, groups = group(nn.Sequential(shared, nn.ReLU(), shared))
    assert (space.names, len(groups["0"])) == (("0",), 1)


def test_sources_outside_the_model_stand_where_they_are_derived():
    model = nn.ModuleDict({"one": MutableValue([1, 2]) * 2})
    loose = [MutableValue([1, 2]), MutableValue([3, 4], alias="named")]
    model["two"] = DerivedMutable.derive_concat_mutable(loose)
    model["again"] = loose[0] * 3
    mutator = Mutator(model)
    assert mutator.space.names == ("one", "two.0", "named")
    mutator.set_choices({"one": 2, "two.0": 2, "named": 4})
    assert [model[name].current_choice for name in model] == [4, 6, 6]


def test_an_alias_may_not_be_the_path_of_another_mutable():
    with pytest.raises(SpaceError, match="alias '1' is also the path of another mutable; rename the alias"):
        group(nn.Sequential(op(alias="1"), op()))


def test_one_alias_needs_one_list_of_choices():
    with pytest.raises(
        SpaceError, match=r"decision 'x' is shared by mutables with different choices: \['a', 'b'\] and \['a', 'c'\]"
    ):
        group(nn.Sequential(op(alias="x"), op("a", "c", alias="x")))


def test_a_model_without_mutables_is_refused():
    with pytest.raises(ValueError, match="no mutables: 2 modules seen in Sequential"):
        group(nn.Sequential(nn.ReLU()))


# ---- custom groups ---------------------------------------------------------------------------------------------------


def model_of_five():
    return nn.ModuleDict({"a": op(), "b": op(), "c": op(alias="x"), "d": op(alias="x"), "e": op()})


@pytest.mark.parametrize(
    ("custom_groups", "expected"),
    [
        ([["a", "e"]], {"a": 2, "b": 1, "x": 2}),
        ([["e", "a"]], {"e": 2, "b": 1, "x": 2}),
        ({"ends": ["a", "e"]}, {"ends": 2, "b": 1, "x": 2}),
        ({"all": ["b", "x", "a"]}, {"all": 4, "e": 1}),
        ([["x", "a"]], {"x": 3, "b": 1, "e": 1}),
        ({"half": ["c"]}, {"a": 1, "b": 1, "half": 1, "x": 1, "e": 1}),
        ([], {"a": 1, "b": 1, "x": 2, "e": 1}),
    ],
)
def test_custom_groups_decide_together_by_path_or_alias(custom_groups, expected):
    mutator = Mutator(model_of_five(), custom_groups=custom_groups)
    assert {name: len(mutables) for name, mutables in mutator.search_groups.items()} == expected
    mutator.set_choices(dict.fromkeys(expected, "b"))
    assert {mutable.current_choice for place in find_places(mutator.model) for mutable in [place.mutable]} == {"b"}


@pytest.mark.parametrize(
    ("custom_groups", "message"),
    [
        ([["a", "stem"]], "custom group 'a' names 'stem', which is no mutable; allowed: 'a', 'b', 'c', 'x', 'd', 'e'"),
        ({"g": ["a", "a"]}, "custom group 'g' takes 'a', which is in 'g' already"),
        ([["a", "b"], ["e", "b"]], "custom group 'e' takes 'b', which is in 'a' already"),
        ([["c", "x"]], "custom group 'c' takes 'x', which is in 'c' already"),
        ({"b": ["a", "e"]}, "custom group 'b' has the name of another decision"),
        ([[]], r"a non-empty list of paths or aliases, got \[\]"),
        ({"g": []}, r"a non-empty list of paths or aliases, got \[\]"),
        (["ab"], "a non-empty list of paths or aliases, got 'ab'"),
        ({"g": "ab"}, "a non-empty list of paths or aliases, got 'ab'"),
    ],
)
@pytest.mark.parametrize("error", [SpaceError, AssertionError])
def test_custom_groups_that_do_not_fit_are_refused(custom_groups, message, error):
    with pytest.raises(error, match=message):
        Mutator(model_of_five(), custom_groups=custom_groups)


def test_a_refused_mutator_changes_no_choice():
    model = model_of_five()
    with pytest.raises(SpaceError, match="which is no mutable"):
        Mutator(model, custom_groups=[["nothing"]])
    assert model["a"].current_choice is None


# ---- conditions ------------------------------------------------------------------------------------------------------


def test_a_nested_decision_matters_inside_its_candidate():
    inner = nn.Sequential(op("x", "y"), MutableValue([1, 2]))
    space, _ = group(nn.Sequential(OneShotMutableOP({"deep": inner, "skip": nn.Identity()})))
    assert space["0._candidates.deep.0"].when == space["0._candidates.deep.1"].when == (("0", "deep"),)
    assert space.size == 4 + 1


def test_a_decision_at_several_places_matters_where_one_of_them_does():
    def block():
        return OneShotMutableOP({"act": op("relu", "gelu", alias="act"), "skip": nn.Identity()})

    space, _ = group(nn.Sequential(block(), block()))
    assert space["act"].when == (("0", "act"), ("1", "act"))
    outside, _ = group(nn.Sequential(block(), op("relu", "gelu", alias="act")))
    assert outside["act"].when == ()


def test_a_shared_candidate_counts_under_both_names():
    shared = nn.Sequential(op("x", "y"))
    space, _ = group(nn.Sequential(OneShotMutableOP({"a": shared, "b": nn.Identity(), "c": shared})))
    assert space["0._candidates.a.0"].when == (("0", "a"), ("0", "c"))
    assert space.size == 5


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x * self.scale.current_choice


class ReadsInside(nn.Module):
    """A derived value outside a candidate reads a value inside it."""

    def __init__(self):
        super().__init__()
        inside = Scaled(MutableValue([1, 2]))
        self.op = OneShotMutableOP({"scaled": inside, "skip": nn.Identity()})
        self.after = Scaled(inside.scale * 10)

    def forward(self, x):
        return self.after(self.op(x))


def test_a_value_that_is_read_outside_its_candidate_always_matters():
    net = ReadsInside()
    mutator = Mutator(net)
    assert mutator.space["op._candidates.scaled.scale"].when == ()
    for architecture in mutator.space.grid():
        with mutator.at(architecture):
            assert torch.equal(export(net, architecture)(torch.ones(1)), net(torch.ones(1)))


def test_a_decision_nested_in_itself_matters_where_the_outer_one_does():
    between = OneShotMutableOP({"in": op("a", "b", alias="x"), "out": nn.Identity()})
    outer = OneShotMutableOP({"a": between, "b": nn.Identity()}, alias="x")
    space, _ = group(nn.Sequential(OneShotMutableOP({"in": outer, "out": nn.Identity()})))
    assert space["x"].when == (("0", "in"),)
    assert space.size == 2 + 1 + 1


# ---- defaults and extremes -------------------------------------------------------------------------------------------


def test_largest_and_smallest_candidates_have_the_most_and_fewest_parameters():
    model = nn.Sequential(
        OneShotMutableOP({"small": nn.Linear(2, 2), "none": nn.Identity(), "big": nn.Linear(2, 3)}),
        MutableValue([3, 5, 1], default_value=5),
    )
    space, _ = group(model)
    assert (space.default, space.max, space.min) == (
        {"0": "small", "1": 5},
        {"0": "big", "1": 5},
        {"0": "none", "1": 1},
    )


def test_defaults_do_not_follow_the_choice_in_force():
    model = nn.Sequential(op(), MutableValue([1, 2, 3], default_value=2))
    before = Mutator(model).space
    model[0].current_choice, model[1].current_choice = "b", 3
    assert group(model)[0] == before
    assert before.default == {"0": "a", "1": 2}


def test_lazy_candidates_must_run_before():
    model = nn.Sequential(OneShotMutableOP({"lazy": nn.LazyLinear(3), "plain": nn.Linear(3, 3)}))
    with pytest.raises(StateError, match="candidate 'lazy' has parameters without a size yet"):
        group(model)
    model(torch.ones(1, 3))
    assert group(model)[0].names == ("0",)


def test_grouping_only_reads_the_model():
    model = model_of_five()
    group(model)
    assert {place.mutable.current_choice for place in find_places(model)} == {None}


# ---- channels, and mutables inside others ----------------------------------------------------------------------------


class Unit(MutableValue):
    """A mutable that owns others, and decides for them."""

    def __init__(self, *owned, **kwargs):
        super().__init__([1, 2], **kwargs)
        self.owned = nn.ModuleList(owned)


def test_channels_that_stand_alone_are_decisions():
    model = nn.ModuleDict(
        {
            "a": OneShotMutableChannel(8, [4, 8], alias="width"),
            "b": OneShotMutableChannel(8, [8, 4], alias="width"),
            "c": SequentialMutableChannel(3),
            "d": OneShotMutableChannel(10, [0.5, 1.0], "ratio"),
        }
    )
    mutator = Mutator(model)
    assert {d.name: (d.choices, d.default) for d in mutator.space} == {
        "width": ((4, 8), 8),
        "c": ((1, 2, 3), 3),
        "d": ((0.5, 1.0), 1.0),
    }
    assert (mutator.min_choices, mutator.max_choices) == ({"width": 4, "c": 1, "d": 0.5}, {"width": 8, "c": 3, "d": 1})
    with mutator.at({"width": 4, "c": 2, "d": 0.5}):
        assert [channels.activated_channels for channels in model.values()] == [4, 4, 2, 5]
    assert mutator.current_choices == {"width": 8, "c": 3, "d": 1.0}
    mutator.fix_choices({"width": 4, "c": 2, "d": 0.5})
    assert mutator.current_choices == {"width": 4, "c": 2, "d": 0.5}


def test_masks_are_no_decisions_and_containers_stand_for_their_members():
    width = SequentialMutableChannel(4)
    model = nn.ModuleDict({"simple": SimpleMutableChannel(3), "container": MutableChannelContainer(6), "op": op()})
    model["container"].register_mutable(width, 0, 4)
    model["after"] = model["container"] * 2
    model["simple"].current_choice = [1]
    mutator = Mutator(model)
    assert mutator.space.names == ("container", "op")
    mutator.set_choices({"container": 2, "op": "b"})
    assert width.current_choice == 2
    assert [place.path for place in find_places(model)] == ["simple", "container", "op"]
    subnet, _ = export_fix_subnet(model)
    assert subnet["simple"].chosen == [1]
    again = nn.ModuleDict({"simple": SimpleMutableChannel(3), "op": op()})
    load_fix_subnet(again, convert_fix_subnet(subnet))
    assert again["simple"].active_index().tolist() == [1]
    with pytest.raises(SpaceError, match="the model has no mutables"):
        Mutator(nn.Sequential(SimpleMutableChannel(3)))


def test_a_model_with_channels_can_be_exported():
    model = nn.ModuleDict({"c": SequentialMutableChannel(4), "s": SimpleMutableChannel(4), "l": nn.Linear(2, 2)})
    model["container"] = MutableChannelContainer(4)
    model["container"].register_mutable(model["c"], 0, 4)
    exported = export(model, {"c": 2})
    assert (exported["c"].current_choice, model["c"].current_choice) == (2, 4)
    assert list(exported.state_dict()) == ["l.weight", "l.bias"]


def test_a_mutable_inside_another_is_decided_by_that_one():
    shared = SequentialMutableChannel(4)
    unit = Unit(shared, MutableValue([1, 2], alias="inner"), op(), Unit(MutableValue([3])), shared * 2, alias="unit")
    model = nn.ModuleDict({"unit": unit, "elsewhere": shared, "twice": shared * 2, "free": op()})
    space, groups = group(model)
    assert space.names == ("unit", "free")
    assert groups["unit"] == [unit]
    assert [place.path for place in find_places(model)] == ["unit", "free"]


def test_an_owner_matters_where_what_it_owns_is_read():
    shared = SequentialMutableChannel(4)
    inside = nn.ModuleList([Unit(shared, op())])
    model = nn.ModuleDict({"op": OneShotMutableOP({"a": inside, "b": nn.Identity()})})
    assert group(model)[0]["op._candidates.a.0"].when == (("op", "a"),)
    model["after"] = shared * 2
    assert group(model)[0]["op._candidates.a.0"].when == ()


def test_an_owner_inside_a_module_mutable_is_a_decision():
    unit = Unit(op(), alias="unit")
    assert names(nn.Sequential(OneShotMutableOP({"a": nn.Sequential(unit), "b": nn.ReLU()}))) == ("0", "unit")
    assert names(Unit(op())) == ("root",)


def test_the_largest_and_the_smallest_of_sorted_lists_are_the_last_and_the_first() -> None:
    shape = OneShotMutableValue([[224, 224], [96, 96], [160, 160]], alias="shape")
    space, _ = group(nn.Sequential(shape))
    assert (space.max, space.min) == ({"shape": [224, 224]}, {"shape": [96, 96]})
