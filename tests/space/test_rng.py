import random
import subprocess
import sys

import pytest

from mutorch.space import as_random, random_at


def test_a_generator_is_advanced_and_a_seed_starts_anew():
    generator = random.Random(0)
    assert as_random(generator) is generator
    assert as_random(3).random() == as_random(3).random()


@pytest.mark.parametrize("seed", [True, 1.0, "7"])
def test_only_an_int_or_a_generator_is_a_random_source(seed):
    with pytest.raises(TypeError, match=f"an int seed or a random.Random, got {type(seed).__name__}"):
        as_random(seed)


def test_positions_give_independent_generators():
    draws = {random_at(seed, *position).random() for seed in (0, 1) for position in [(), (1,), ("a", 1), (11,), (1, 1)]}
    assert len(draws) == 10


def test_a_position_draws_the_same_in_another_process():
    code = "from mutorch.space import random_at; print(random_at(3, 'step', 7).random())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(other.stdout) == random_at(3, "step", 7).random()
