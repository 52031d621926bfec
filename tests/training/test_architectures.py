import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.space import Decision, Ref, SearchSpace
from mutorch.training import single_path, strict_fair

SPACE = SearchSpace([Decision("op", ("a", "b", "c", "d")), Decision("size", (3, 5)), Decision("rate", (0.1, 0.2, 0.3))])


def test_architectures_are_a_function_of_seed_and_step():
    assert single_path(SPACE, 0, 7) == single_path(SPACE, 0, 7)
    assert strict_fair(SPACE, 0, 7) == strict_fair(SPACE, 0, 7)
    for changed in ((0, 8), (1, 7)):
        assert strict_fair(SPACE, *changed) != strict_fair(SPACE, 0, 7)
    assert len({tuple(single_path(SPACE, 0, step).values()) for step in range(200)}) == SPACE.size


def test_another_process_uses_the_same_architectures():
    code = (
        "from mutorch.space import SearchSpace\n"
        "from mutorch.training import single_path, strict_fair\n"
        f"space = SearchSpace.from_json({SPACE.to_json()!r})\n"
        "print([single_path(space, 3, step) for step in range(5)], strict_fair(space, 3, 5))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{[single_path(SPACE, 3, step) for step in range(5)]} {strict_fair(SPACE, 3, 5)}"


def test_single_paths_are_uniform():
    counts = Counter(single_path(SPACE, 0, step)["op"] for step in range(2000))
    assert all(abs(count - 500) < 100 for count in counts.values())


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 10**9), st.integers(0, 10**9))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_strictly_fair_set_uses_every_choice_equally_often(counts, seed, step):
    space = SearchSpace(Decision(f"d{n}", tuple(range(count))) for n, count in enumerate(counts))
    architectures = strict_fair(space, seed, step)
    assert len(architectures) == max(counts)
    for decision in space:
        used = Counter(architecture[decision.name] for architecture in architectures)
        assert set(used) == set(decision.choices)
        assert max(used.values()) - min(used.values()) <= (max(counts) % len(decision.choices) > 0)


@pytest.mark.parametrize("step", range(3))
def test_strictly_fair_sets_are_permutations_and_not_shifts_of_each_other(step):
    columns = [tuple(a["op"] for a in strict_fair(SPACE, seed, step)) for seed in range(200)]
    assert len(set(columns)) == 24


def test_architectures_of_a_step_obey_constraints():
    decisions = [Decision("a", (1, 2, 3)), Decision("b", (1, 2, 3))]
    space = SearchSpace(decisions, [Ref("a") + Ref("b") <= 4])
    for step in range(30):
        assert single_path(space, 0, step) in space
        drawn = strict_fair(space, 0, step)
        assert len(drawn) == 3
        assert all(architecture in space for architecture in drawn)
