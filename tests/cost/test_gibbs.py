import itertools
import math

import numpy as np
import pytest
from factor_spaces import all_codes, deviation, random_factors
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.cost.elimination import plan
from mutorch.cost.gibbs import Gibbs

SAMPLES = 20_000


def log_likelihoods(tables, codes):
    return sum(
        np.array([float(table[tuple(row[number] for number in key)]) for row in codes]) for key, table in tables.items()
    )


def distribution(tables, counts):
    """Probabilities of all codes, and the logarithm of what they were divided by."""
    logs = log_likelihoods(tables, all_codes(counts))
    return np.exp(logs) / np.exp(logs).sum(), math.log(np.exp(logs).sum())


def tilted_tables(counts, seed, ruled_out=0.1):
    """Logarithms of weights, of which some rule out, but not the first codes."""
    random = np.random.default_rng(seed)
    found = {}
    for key, table in random_factors(counts, seed).tables.items():
        values = np.where(random.random(table.shape) < ruled_out, -np.inf, table / 100)
        values[(0,) * len(key)] = 0.0
        found[key] = values
    return found


SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=5)


@given(SIZES, st.integers(0, 10**6))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_samples_have_the_probabilities_of_the_tables(counts, seed):
    tables = tilted_tables(counts, seed)
    wanted, log_total = distribution(tables, counts)
    gibbs = Gibbs(counts, tables)
    codes, keep = gibbs.at(tables).sample(np.random.default_rng(0), SAMPLES)
    assert gibbs.is_exact
    assert not keep.any()
    assert gibbs.at(tables).log_total == pytest.approx(log_total)
    assert deviation(codes, counts, wanted) < 5
    assert np.isfinite(log_likelihoods(tables, codes)).all()


@given(st.lists(st.integers(2, 4), min_size=3, max_size=5), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_split_decisions_are_bounded_and_what_is_kept_has_the_probabilities_all_the_same(counts, seed):
    tables = tilted_tables(counts, seed)
    tables |= {
        (a, b): tilted_tables((counts[a], counts[b]), seed).get((0, 1), np.zeros((counts[a], counts[b])))
        for a, b in itertools.combinations(range(len(counts)), 2)
    }
    wanted, log_total = distribution(tables, counts)
    tilted = Gibbs(counts, tables, entries=4).at(tables)
    random = np.random.default_rng(0)
    codes, keep = tilted.sample(random, SAMPLES)
    kept = codes[np.log(random.random(SAMPLES)) < keep]
    assert tilted.log_total >= log_total - 1e-9
    assert keep.max() < 1e-9
    # What is thrown away is what the bound is too large by.
    assert len(kept) / SAMPLES == pytest.approx(math.exp(log_total - tilted.log_total), abs=0.02)
    assert deviation(kept, counts, wanted) < 5
    assert np.isfinite(log_likelihoods(tables, kept)).all()


def test_a_chain_of_hundreds_of_decisions_is_sampled_exactly():
    # Each is equal to the one before with 9 in 10.
    alike = np.log(np.array([[0.9, 0.1], [0.1, 0.9]]))
    tables = {(number, number + 1): alike for number in range(299)} | {(0,): np.log([0.2, 0.8])}
    codes, _ = Gibbs((2,) * 300, tables).at(tables).sample(np.random.default_rng(0), 4000)
    assert codes[:, 0].mean() == pytest.approx(0.8, abs=0.03)
    assert (codes[:, 1:] == codes[:, :-1]).mean() == pytest.approx(0.9, abs=0.01)


def test_equal_generators_give_equal_samples():
    tables = tilted_tables((3, 3, 3), 1)
    first, second = (Gibbs((3, 3, 3), tables).at(tables).sample(np.random.default_rng(5), 50)[0] for _ in range(2))
    assert (first == second).all()


def test_eliminations_of_decisions_that_all_act_on_each_other_stay_within_their_entries():
    keys = list(itertools.combinations(range(60), 2))
    entries = [math.prod([8] * len(part.key)) for bucket in plan((8,) * 60, keys) for part in bucket.parts]
    assert sum(entries) <= 1_000_000
    assert any(len(bucket.parts) > 1 for bucket in plan((8,) * 60, keys))


def test_decisions_of_a_chain_are_not_split():
    keys = [(number, number + 1) for number in range(100)]
    assert all(len(bucket.parts) == 1 for bucket in plan((16,) * 101, keys))
