import itertools
import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import constrained_spaces, rules, spaces

from mutorch.errors import ChoiceError, ConstraintError, SpaceError
from mutorch.space import Decision, Ref, SearchSpace

seeds = st.integers(0, 2**32)
depth, width, op = Ref("depth"), Ref("width"), Ref("op")
AREA = SearchSpace([Decision("depth", (2, 3, 4)), Decision("width", (16, 32))], [depth * width <= 64])
NESTED = SearchSpace(
    [
        Decision("op", ("conv", "skip")),
        Decision("kernel", (3, 5, 7), when=(("op", "conv"),)),
        Decision("width", (16, 32)),
        Decision("free", (1, 2, 3)),
    ],
    [Ref("kernel") * width <= 112],
)


def free(space):
    """The same decisions without constraints."""
    return SearchSpace(space.decisions)


def obeys(space, architecture):
    """By the definition: every constraint is true where hidden decisions are at their default."""
    canonical = free(space).canonical(architecture)
    return all(constraint.evaluate(canonical) for constraint in space.constraints)


# ---- properties ------------------------------------------------------------------------------------------------------


@given(constrained_spaces(), seeds)
def test_whatever_comes_out_of_a_space_obeys_its_constraints(space, seed):
    parent, other = space.sample(seed), space.sample(seed + 1)
    child = space.mutate(parent, seed, 0.5)
    crossed = space.crossover(parent, other, seed)
    for architecture in (parent, child, crossed, space.default, space.max, space.min, *space.neighbours(parent)):
        assert obeys(space, architecture)
        assert architecture in space
        space.validate(architecture)
        assert space.decode(space.encode(architecture)) == architecture
    assert all(crossed[name] in (parent[name], other[name]) for name in space.names)
    assert child == space.canonical(child)


@given(constrained_spaces())
def test_the_grid_is_what_the_constraints_leave_of_the_whole_grid(space):
    grid = list(space.grid())
    assert grid == [a for a in free(space).grid() if obeys(space, a)]
    assert len(grid) == space.size
    assert repr(space).endswith(f" {space.size} architectures)")


@given(constrained_spaces(), seeds)
def test_membership_is_what_the_constraints_say(space, seed):
    architecture = free(space).sample(seed)
    assert (architecture in space) == obeys(space, architecture) == (not space.broken(architecture))
    if architecture in space:
        assert space.repair(architecture) == architecture
    else:
        with pytest.raises(ConstraintError):
            space.encode(architecture)


@given(constrained_spaces(), seeds)
def test_a_repair_changes_as_few_choices_as_possible(space, seed):
    target = free(space).sample(seed)
    repaired = space.repair(target)
    assert repaired in space
    changes = len(free(space).diff(target, repaired))
    ranges = (d.choices for d in space)
    everything = (dict(zip(space.names, choices, strict=True)) for choices in itertools.product(*ranges))
    fewest = min(len(free(space).diff(target, a)) for a in everything if obeys(space, a))
    assert fewest <= changes
    if not any(decision.when for decision in space):
        assert changes == fewest


@given(constrained_spaces(), seeds)
def test_a_space_with_constraints_in_json_is_the_same_space(space, seed):
    again = SearchSpace.from_json(space.to_json())
    assert (again, hash(again), again.fingerprint) == (space, hash(space), space.fingerprint)
    assert (again.default, again.max, again.min, again.size) == (space.default, space.max, space.min, space.size)
    assert again.sample(seed) == space.sample(seed)
    assert space != free(space)
    assert space.fingerprint != free(space).fingerprint


@given(constrained_spaces(), seeds)
def test_fixed_decisions_keep_their_choice(space, seed):
    sample = space.sample(seed)
    fixed = dict(random.Random(seed).sample(sorted(sample.items()), k=len(sample) // 2))
    drawn = space.random(seed, fixed)
    assert drawn in space
    assert all(drawn[name] == choice for name, choice in fixed.items())
    repaired = space.repair(space.default, fixed)
    assert repaired in space
    assert all(repaired[name] == choice for name, choice in fixed.items())
    grid = list(space.grid(fixed))
    expected = [a for a in space.grid() if all(a[n] == c or not space.is_active(n, a) for n, c in fixed.items())]
    assert grid == expected


@given(constrained_spaces(), seeds)
def test_a_sample_without_its_hidden_decisions_is_completed(space, seed):
    sample = space.sample(seed)
    shown = {name: choice for name, choice in sample.items() if space.is_active(name, sample)}
    assert space.complete(shown) == space.complete(sample) == space.canonical(sample)


@given(spaces(max_decisions=4).flatmap(lambda space: st.tuples(st.just(space), st.lists(rules(space), max_size=3))))
def test_a_space_is_refused_exactly_when_nothing_obeys(drawn):
    space, constraints = drawn
    possible = any(all(c.evaluate(a) for c in constraints) for a in space.grid())
    if possible:
        assert SearchSpace(space.decisions, constraints).default in space
    else:
        with pytest.raises(SpaceError, match="no architecture obeys '"):
            SearchSpace(space.decisions, constraints)


@given(spaces(), seeds)
def test_a_space_without_constraints_is_what_it_was(space, seed):
    same = SearchSpace(space.decisions, [])
    assert same == space
    assert json.loads(same.to_json()) == {"version": 1, "decisions": [d.to_dict() for d in space]}
    assert same.random(seed) == space.sample(seed)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_constrained_decisions_are_counted_with_what_hides_them_and_all_others_apart():
    assert AREA.size == 4
    # conv: kernels 3, 5, 7 with width 16 and 3 with 32; skip: the kernel counts as 3.
    assert NESTED.size == (4 + 2) * 3
    blocks = [Decision(f"d{n}", (1, 2, 3)) for n in range(60)]
    pairs = [Ref(f"d{n}") <= Ref(f"d{n + 1}") for n in range(0, 60, 2)]
    assert SearchSpace(blocks, pairs).size == 6**30


def test_decisions_inside_constrained_candidates_are_counted():
    inner = [Decision(f"k{n}", (3, 5), when=((f"op{n}", "conv"),)) for n in range(20)]
    ops = [Decision(f"op{n}", ("conv", "skip")) for n in range(20)]
    rules = [~(Ref(f"op{n}").eq("skip") & Ref(f"op{n + 1}").eq("skip")) for n in range(0, 20, 2)]
    # A pair: both conv 2 * 2, one conv 2 + 2, none 0.
    assert SearchSpace([*ops, *inner], rules).size == 8**10


def test_a_space_with_too_many_tied_decisions_is_not_counted_but_used():
    many = [Decision(f"depth{n}", (1, 2, 3, 4)) for n in range(40)]
    total = sum((Ref(d.name) for d in many[1:]), Ref("depth0"))
    space = SearchSpace(many, [total <= 60])
    with pytest.raises(SpaceError, match=r"cannot be counted: .* tie 40 decisions together, which have .* at most"):
        _ = space.size
    assert repr(space) == f"SearchSpace(40 decisions, 1 constraints, at most {4**40} architectures)"
    assert space.report().endswith(f"40 decisions, at most {4**40:,} architectures")
    for architecture in (space.sample(0), space.max, space.mutate(space.sample(1), 1)):
        assert sum(architecture.values()) <= 60
    assert sum(space.max.values()) >= 58


def test_samples_are_uniform_over_what_is_allowed():
    counts = Counter(tuple(AREA.sample(generator).values()) for generator in map(random.Random, range(4000)))
    assert set(counts) == {(2, 16), (2, 32), (3, 16), (4, 16)}
    assert all(abs(count - 1000) < 120 for count in counts.values())


def test_samples_are_uniform_where_hardly_anything_is_allowed():
    bits = [Decision(f"b{n}", (0, 1)) for n in range(12)]
    total = sum((Ref(d.name) for d in bits[1:]), Ref("b0"))
    space = SearchSpace(bits, [total <= 1])
    counts = Counter(space.encode(space.sample(seed)) for seed in range(1300))
    assert len(counts) == 13
    assert all(60 < count < 150 for count in counts.values())


def test_one_allowed_combination_of_a_million_is_found():
    digits = [Decision(f"digit{n}", tuple(range(10))) for n in range(9)]
    number = sum((Ref(d.name) * 10**n for n, d in enumerate(digits[1:], start=1)), Ref("digit0"))
    space = SearchSpace(digits, [number >= 999_999_999])
    assert set(space.sample(0).values()) == {9}
    assert space.neighbours(space.sample(0)) == []
    assert space.mutate(space.sample(0), 0) == space.sample(0)


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_the_default_is_repaired_by_the_fewest_and_nearest_changes():
    space = SearchSpace([Decision("depth", (2, 3, 4)), Decision("width", (16, 32, 64))], [depth * width > 64])
    assert space.default == {"depth": 2, "width": 64}
    assert space.min == {"depth": 2, "width": 64}
    assert AREA.max == {"depth": 4, "width": 16}
    assert AREA.default == AREA.min == {"depth": 2, "width": 16}
    assert space.repair({"depth": 3, "width": 16}, {"depth": 3}) == {"depth": 3, "width": 32}


def test_the_ends_of_a_space_are_copies():
    AREA.max["depth"] = 0
    assert AREA.max == {"depth": 4, "width": 16}


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_a_broken_constraint_is_printed_with_the_choices_that_break_it():
    with pytest.raises(ConstraintError, match=r"breaks the constraint 'depth \* width <= 64': depth = 4, width = 32$"):
        AREA.validate({"depth": 4, "width": 32})
    with pytest.raises(ValueError, match="kernel = 7, width = 32"):
        NESTED.canonical({"op": "conv", "kernel": 7, "width": 32, "free": 1})


def test_a_hidden_decision_counts_as_its_default():
    hidden = {"op": "skip", "kernel": 7, "width": 32, "free": 1}
    assert hidden in NESTED
    assert NESTED.canonical(hidden)["kernel"] == 3


def test_constraints_that_nothing_obeys_are_refused_by_name():
    with pytest.raises(SpaceError, match=r"no architecture obeys 'depth > 3' and 'depth < 2'"):
        SearchSpace([Decision("depth", (2, 3, 4))], [depth > 3, depth < 2])


def test_a_constraint_that_names_no_decision_is_refused_with_the_nearest():
    with pytest.raises(SpaceError, match="no decision 'dept'; did you mean 'depth'"):
        SearchSpace([Decision("depth", (2, 3, 4))], [Ref("dept") > 3])


def test_what_is_no_expression_is_no_constraint():
    with pytest.raises(SpaceError, match=r"expression over Ref\(name\), got False; write `.eq"):
        SearchSpace([Decision("depth", (2, 3, 4))], [depth == 3])


def test_an_impossible_fixed_choice_is_refused():
    with pytest.raises(SpaceError, match="no architecture obeys .* where op = 'conv', width = 32, kernel = 7"):
        NESTED.random(0, {"op": "conv", "kernel": 7, "width": 32})
    with pytest.raises(SpaceError, match="no architecture obeys .* where op = 'conv', width = 32, kernel = 7"):
        NESTED.repair(NESTED.default, {"op": "conv", "kernel": 7, "width": 32})
    with pytest.raises(SpaceError, match="no decision 'kernels'; did you mean 'kernel'"):
        NESTED.random(0, {"kernels": 3})
    with pytest.raises(ChoiceError, match="'kernel' has no choice 4"):
        list(NESTED.grid({"kernel": 4}))


def test_a_missing_decision_that_matters_is_named():
    with pytest.raises(SpaceError, match="sample missing: decision 'kernel' matters here and is not in the sample"):
        NESTED.complete({"op": "conv", "width": 16, "free": 1})
    with pytest.raises(SpaceError, match="no decision 'kernels'; did you mean 'kernel'"):
        NESTED.complete({"op": "skip", "kernels": 16, "free": 1})
    with pytest.raises(ConstraintError, match="kernel = 5, width = 32"):
        NESTED.complete({"op": "conv", "kernel": 5, "width": 32, "free": 1})


def test_the_report_lists_the_constraints():
    assert AREA.report().splitlines()[-2:] == ["must hold: depth * width <= 64", "2 decisions, 4 architectures"]


@given(constrained_spaces(nested=False), seeds)
def test_mutation_changes_something_where_a_neighbour_is_allowed(space, seed):
    parent = space.canonical(space.sample(seed))
    if space.neighbours(parent):
        assert space.mutate(parent, seed) != parent
