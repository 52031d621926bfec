import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import spaces

from mutorch.errors import ChoiceError, SpaceError
from mutorch.space import Decision, SearchSpace

seeds = st.integers(0, 2**32)

NESTED = SearchSpace(
    [
        Decision("op", ("conv", "skip")),
        Decision("kernel", (3, 5), when=(("op", "conv"),)),
        Decision("depth", (2, 3, 4)),
    ]
)


def active(space, architecture):
    return [name for name in space.names if space.is_active(name, architecture)]


# ---- properties ------------------------------------------------------------------------------------------------------


@given(spaces(), seeds)
def test_samples_are_in_the_space_and_decode_undoes_encode(space, seed):
    architecture = space.sample(seed)
    assert architecture in space
    assert tuple(architecture) == space.names
    assert space.decode(space.encode(architecture)) == architecture
    assert json.loads(json.dumps(architecture)) in space


@given(spaces(), seeds)
def test_a_space_in_json_is_the_same_space(space, seed):
    again = SearchSpace.from_json(space.to_json())
    assert (again, hash(again), again.fingerprint) == (space, hash(space), space.fingerprint)
    assert (again.default, again.max, again.min, again.size) == (space.default, space.max, space.min, space.size)
    assert again.sample(seed) == space.sample(seed)


@given(spaces(), spaces())
def test_fingerprints_are_equal_exactly_for_equal_spaces(one, other):
    assert (one.fingerprint == other.fingerprint) == (one == other)


@given(spaces())
def test_the_grid_has_every_subnet_once(space):
    grid = list(space.grid())
    assert len(grid) == space.size
    assert len({space.encode(architecture) for architecture in grid}) == len(grid)
    assert all(space.canonical(architecture) == architecture for architecture in grid)


@given(spaces(), seeds)
def test_every_architecture_has_its_canonical_form_in_the_grid(space, seed):
    canonical = space.canonical(space.sample(seed))
    assert canonical in list(space.grid())
    assert space.canonical(canonical) == canonical


@given(spaces(), seeds)
def test_hidden_decisions_do_not_change_the_canonical_form(space, seed):
    architecture, other = space.sample(seed), space.sample(seed + 1)
    hidden = {name: other[name] for name in space.names if name not in active(space, architecture)}
    assert space.canonical({**architecture, **hidden}) == space.canonical(architecture)


@given(spaces(), seeds, st.floats(0, 1))
def test_mutation_changes_a_decision_that_matters(space, seed, prob):
    parent = space.canonical(space.sample(seed))
    child = space.mutate(parent, seed, prob)
    assert child == space.canonical(child)
    open_names = [name for name in active(space, parent) if len(space[name].choices) > 1]
    changed = [name for name in open_names if name in space.diff(parent, child)]
    assert bool(changed) == bool(open_names)


@given(spaces(), seeds)
def test_mutation_with_probability_0_changes_one_decision_that_matters(space, seed):
    parent = space.canonical(space.sample(seed))
    child = space.mutate(parent, seed, 0.0)
    both = set(active(space, parent)) & set(active(space, child))
    assert len(both & set(space.diff(parent, child))) == (0 if child == parent else 1)


@given(spaces(), seeds, st.floats(0, 1))
def test_a_child_of_two_takes_every_choice_from_a_parent(space, seed, prob):
    first, second = space.sample(seed), space.sample(seed + 1)
    child = space.crossover(first, second, seed, prob)
    assert child in space
    assert all(child[name] in (first[name], second[name]) for name in space.names)
    assert space.crossover(first, second, seed, 0.0) == first
    assert space.crossover(first, second, seed, 1.0) == second


@given(spaces(max_decisions=4), seeds)
def test_neighbours_are_all_subnets_one_decision_away(space, seed):
    center = space.canonical(space.sample(seed))
    neighbours = space.neighbours(center)
    assert len({space.encode(neighbour) for neighbour in neighbours}) == len(neighbours)
    for neighbour in neighbours:
        both = set(active(space, center)) & set(active(space, neighbour))
        assert len(both & set(space.diff(center, neighbour))) == 1
    expected = sum(len(space[name].choices) - 1 for name in active(space, center))
    assert len(neighbours) == expected


@given(spaces(), seeds)
def test_a_difference_leads_from_one_architecture_to_the_other(space, seed):
    first, second = space.sample(seed), space.sample(seed + 1)
    difference = space.diff(first, second)
    assert {**first, **{name: new for name, (_, new) in difference.items()}} == second
    assert all(space[name].index(old) != space[name].index(new) for name, (old, new) in difference.items())
    assert space.diff(first, first) == {}


@given(spaces(), seeds)
def test_drawing_leaves_the_global_generator_alone(space, seed):
    before = random.getstate()
    architecture = space.sample(seed)
    space.crossover(architecture, space.mutate(architecture, seed), seed)
    assert random.getstate() == before


@given(spaces(nested=False))
def test_without_nesting_the_last_decision_moves_fastest(space):
    codes = [space.encode(architecture) for architecture in space.grid()]
    assert codes == sorted(codes)


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_a_decision_inside_a_candidate_counts_only_there():
    assert NESTED.size == (2 + 1) * 3
    assert SearchSpace([]).size == 1


def test_a_decision_shared_by_candidates_counts_where_one_of_them_is_chosen():
    blocks = [Decision(f"block{n}", ("conv", "skip")) for n in range(60)]
    shared = Decision("activation", ("relu", "gelu", "silu"), when=tuple((d.name, "conv") for d in blocks))
    own = [Decision(f"kernel{n}", (3, 5), when=((f"block{n}", "conv"),)) for n in range(60)]
    # All blocks skip: one subnet. Otherwise the activation matters.
    assert SearchSpace([*blocks, shared, *own]).size == 3 * (3**60 - 1) + 1


def test_deep_nesting_is_counted_exactly():
    chain = [Decision("d0", ("in", "out"))]
    chain += [Decision(f"d{n}", ("in", "out"), when=((f"d{n - 1}", "in"),)) for n in range(1, 200)]
    assert SearchSpace(reversed(chain)).size == 201


def test_the_default_architecture_of_a_nested_space_is_canonical():
    assert NESTED.canonical(NESTED.default) == NESTED.default
    assert NESTED.canonical({"op": "skip", "kernel": 5, "depth": 2.0}) == {"op": "skip", "kernel": 3, "depth": 2}


def test_a_space_of_one_subnet_has_no_other():
    space = SearchSpace([Decision("a", (1,)), Decision("b", ("x",))])
    assert space.mutate(space.default, 0) == space.default
    assert space.neighbours(space.default) == []


def test_samples_take_every_choice_equally_often():
    counts = [0, 0, 0]
    generator = random.Random(0)
    for _ in range(3000):
        counts[NESTED["depth"].index(NESTED.sample(generator)["depth"])] += 1
    assert all(math.isclose(count, 1000, rel_tol=0.1) for count in counts)


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SpaceError, ValueError, AssertionError])
def test_an_unknown_decision_is_named_with_the_nearest_ones(error):
    with pytest.raises(error, match="no decision 'kernels'; did you mean 'kernel'"):
        NESTED.validate({**NESTED.default, "kernels": 3})


def test_missing_decisions_are_listed():
    with pytest.raises(SpaceError, match="leaves 2 undecided: 'kernel', 'depth'$"):
        NESTED.validate({"op": "skip"})
    many = SearchSpace([Decision(f"d{n}", (1, 2)) for n in range(9)])
    with pytest.raises(SpaceError, match="leaves 9 undecided: 'd0', 'd1', 'd2', 'd3', 'd4' and 4 more"):
        many.encode({})


def test_a_wrong_choice_is_named_with_its_decision():
    with pytest.raises(ChoiceError, match="decision 'kernel' has no choice 7; allowed: 3, 5"):
        NESTED.encode({"op": "skip", "kernel": 7, "depth": 2})


@pytest.mark.parametrize("architecture", [None, ["skip", 3, 2], "skip", {"op": "skip"}, {**NESTED.default, "more": 1}])
def test_whatever_is_no_architecture_is_not_in_the_space(architecture):
    assert architecture not in NESTED
    with pytest.raises(SpaceError, match="an architecture is a dict|undecided|no decision"):
        NESTED.validate(architecture)


def test_names_are_unique_and_conditions_name_decisions():
    with pytest.raises(SpaceError, match="must be unique; given twice: a$"):
        SearchSpace([Decision("a", (1,)), Decision("b", (1,)), Decision("a", (2,))])
    with pytest.raises(SpaceError, match="no decision 'pa'; did you mean 'par'"):
        SearchSpace([Decision("par", ("x",)), Decision("b", (1,), when=(("pa", "x"),))])
    with pytest.raises(ChoiceError, match="decision 'par' has no choice 'y'"):
        SearchSpace([Decision("par", ("x",)), Decision("b", (1,), when=(("par", "y"),))])


def test_conditions_in_a_circle_are_refused():
    with pytest.raises(SpaceError, match="form a cycle: a -> b -> a|form a cycle: b -> a -> b"):
        SearchSpace([Decision("a", (1, 2), when=(("b", 1),)), Decision("b", (1, 2), when=(("a", 1),))])


@pytest.mark.parametrize(
    ("codes", "message"), [((0, 0), "3 decisions, got 2"), ((0, 0, 3), "'depth' .* 0 to 2, got 3")]
)
def test_codes_of_another_space_are_refused(codes, message):
    with pytest.raises(SpaceError, match=message):
        NESTED.decode(codes)
    with pytest.raises(SpaceError, match="'op' numbers its choices 0 to 1, got -1"):
        NESTED.decode((-1, 0, 0))


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 2, "decisions": []}', '{"version": 1}'])
def test_text_that_is_no_space_is_refused(text):
    with pytest.raises(SpaceError, match="not a search space"):
        SearchSpace.from_json(text)


@pytest.mark.parametrize("prob", [-0.1, 1.5])
def test_a_probability_is_between_0_and_1(prob):
    with pytest.raises(SpaceError, match="between 0 and 1"):
        NESTED.mutate(NESTED.default, 0, prob)
    with pytest.raises(SpaceError, match="between 0 and 1"):
        NESTED.crossover(NESTED.default, NESTED.default, 0, prob)


# ---- older models ----------------------------------------------------------------------------------------------------


def test_an_architecture_of_an_older_model_is_adapted():
    older = {"block": "skip", "kernel": 5, "removed": 1}
    assert NESTED.adapt(older, rename={"block": "op"}) == {"op": "skip", "kernel": 5, "depth": 2}


def test_a_choice_that_no_longer_exists_is_never_replaced():
    with pytest.raises(ChoiceError, match="'kernel' has no choice 7"):
        NESTED.adapt({"kernel": 7})


def test_a_rename_must_apply():
    with pytest.raises(SpaceError, match="nothing to rename: 'blok'; did you mean 'block'"):
        NESTED.adapt({"block": "skip"}, rename={"blok": "op"})
    with pytest.raises(SpaceError, match="no decision 'operation'"):
        NESTED.adapt({"block": "skip"}, rename={"block": "operation"})


# ---- for people ------------------------------------------------------------------------------------------------------


def test_the_report_shows_choices_conditions_and_size():
    assert NESTED.report().splitlines() == [
        "op        2  conv, skip",
        "kernel    2  3, 5  (when op = conv)",
        "depth     3  2, 3, 4",
        "3 decisions, 9 architectures",
    ]
    assert repr(NESTED) == "SearchSpace(3 decisions, 9 architectures)"
