"""Spaces whose costs are sums of small random tables, with all of their codes to compare with."""

import itertools

import numpy as np
from hypothesis import strategies as st

from mutorch.cost import CostTable
from mutorch.cost.factors import Factors
from mutorch.space import Decision, Ref, SearchSpace


def all_codes(counts):
    return np.array(list(itertools.product(*(range(count) for count in counts))), dtype=int).reshape(-1, len(counts))


def random_factors(counts, seed, *, tables=5, largest=100):
    """A sum of tables over none to three decisions."""
    random = np.random.default_rng(seed)
    found = {}
    for _ in range(tables):
        size = min(len(counts), int(random.integers(4)))
        key = tuple(sorted(random.choice(len(counts), size=size, replace=False).tolist()))
        found[key] = np.asarray(random.integers(-largest, largest, size=[counts[number] for number in key]))
    return Factors(tuple(counts), found)


def cost_table(space, seed=0, **factors):
    """A table whose flops, parameters and so on are these sums, and random ones where none is given."""
    counts = [len(decision.choices) for decision in space]
    names = ("flops", "params", "bytes", "activation_bytes")
    return CostTable(
        space, {}, {name: factors.get(name) or random_factors(counts, [seed, n]) for n, name in enumerate(names)}
    )


def sum_table(decisions=60, choices=3, **factors):
    """Choices from 0 on, of which every cost is the sum, unless given."""
    space = SearchSpace([Decision(f"d{n}", tuple(range(choices))) for n in range(decisions)])
    total = Factors((choices,) * decisions, {(n,): np.arange(choices) for n in range(decisions)})
    return cost_table(space, **{**dict.fromkeys(("flops", "params", "bytes", "activation_bytes"), total), **factors})


@st.composite
def cost_tables(draw):
    """Tables of small spaces, some with constraints."""
    counts = draw(st.lists(st.integers(1, 4), min_size=3, max_size=6))
    decisions = [Decision(f"d{number}", tuple(range(count))) for number, count in enumerate(counts)]
    constraints = [Ref("d0") + Ref("d1") <= draw(st.integers(0, 4))] if draw(st.booleans()) else []
    return cost_table(SearchSpace(decisions, constraints), draw(st.integers(0, 10**6)))


@st.composite
def budgets(draw, table, most=2):
    """Bounds on one metric or more, above, below or both, each of which some architecture meets."""
    space = table.space
    codes = np.array([space.encode(architecture) for architecture in space.grid()])
    spec = {}
    for metric in draw(
        st.lists(st.sampled_from(["macs", "params", "size_mb"]), min_size=1, max_size=most, unique=True)
    ):
        values = table.evaluate(codes, metric).tolist()
        low, high = sorted((draw(st.sampled_from(values)), draw(st.sampled_from(values))))
        spec[metric] = draw(st.sampled_from([(None, high), (low, None), (low, high)]))
    return spec


def deviation(codes, counts, wanted):
    """By how many standard deviations the chi-square statistic of sampled codes is too large; about 0 if they are as wanted."""
    places = np.ravel_multi_index(np.asarray(codes).T, counts)
    found = np.bincount(places, minlength=len(wanted)).astype(float)
    expected = np.asarray(wanted) * len(codes)
    rare = expected < 5
    found, expected = (np.array([*values[~rare], values[rare].sum()]) for values in (found, expected))
    if expected[-1] < 5:  # too few to say
        found, expected = found[:-1], expected[:-1]
    freedom = max(len(expected) - 1, 1)
    return (((found - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom)
