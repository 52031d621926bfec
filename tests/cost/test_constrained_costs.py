import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import constrained_spaces
from torch import nn

from mutorch import CostTable, Mutator, Require, ValueChoice, count, export
from mutorch.channels import searchable, widths
from mutorch.cost import allowed as allowed_module
from mutorch.cost.allowed import Allowed
from mutorch.cost.factors import Factors
from mutorch.mutables import OneShotMutableOP, choice_of
from mutorch.space import Decision, Ref, SearchSpace

seeds = st.integers(0, 2**32)


class Heads(nn.Module):
    """Cannot run where the heads do not divide the width: what its rule says."""

    def __init__(self):
        super().__init__()
        self.width, self.heads = ValueChoice([12, 24, 32]), ValueChoice([2, 3, 8])
        self.doubled = self.width * 2
        self.op = OneShotMutableOP({"linear": nn.Linear(64, 64), "skip": nn.Identity()})
        self.weight = nn.Parameter(torch.randn(64, 64))
        self.rule = Require((self.width % self.heads).eq(0))
        self.small = Require(choice_of(self.op).eq("skip") | (self.width < 32))

    def forward(self, x):
        width, heads = self.width.current_choice, self.heads.current_choice
        x = self.op(x)
        x = nn.functional.linear(x, self.weight[: self.doubled.current_choice])
        x = x.view(len(x), 2, heads, width // heads)
        return x @ x.transpose(-1, -2)


def random_factors(space, seed):
    """A function of a space as a sum of small tables."""
    random = np.random.default_rng(seed)
    counts = tuple(len(decision.choices) for decision in space)
    keys = {tuple(sorted(random.choice(len(counts), size=min(2, len(counts)), replace=False))) for _ in range(4)}
    keys |= {(n,) for n in range(len(counts))}
    return Factors(counts, {tuple(map(int, key)): random.integers(0, 50, [counts[n] for n in key]) for key in keys})


def table_of(space, factors):
    return CostTable(space, {}, dict.fromkeys(("flops", "params", "activation_bytes", "bytes"), factors))


@given(constrained_spaces(nested=False), seeds)
def test_the_cheapest_and_the_largest_obey_and_are_exact(space, seed):
    factors = random_factors(space, seed)
    table = table_of(space, factors)
    values = factors.evaluate(np.array([space.encode(architecture) for architecture in space.grid()]))
    for found, best in ((table.cheapest("params"), values.min()), (table.largest("params"), values.max())):
        assert found in space
        assert factors.evaluate(np.array([space.encode(found)]))[0] == best
    assert table.reachable("params") == (values.min(), values.max())


@pytest.mark.parametrize("tabled", [0, 100_000])
@given(constrained_spaces(), seeds)
def test_the_mask_over_codes_is_membership(tabled, space, seed):
    codes = np.random.default_rng(seed).integers(0, [len(d.choices) for d in space], size=(20, len(space)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allowed_module, "TABLED", tabled)
        allowed = Allowed(space)
        assert allowed.mask(codes).tolist() == [space.decode(row) in space for row in codes]
        assert allowed.mask(allowed.random(np.random.default_rng(seed), 20)).all()
    assert not allowed.is_everything


def test_costs_of_a_model_that_cannot_run_what_is_ruled_out_are_exact():
    net = Heads()
    mutator = Mutator(net)
    x = torch.zeros(3, 64)
    table = CostTable.from_model(mutator, x)
    assert mutator.space.size == sum(not w % h for w in (12, 24) for h in (2, 3, 8)) * 2 + 2
    for architecture in mutator.space.grid():
        assert table(architecture).macs == count(export(net, architecture), x).macs
    macs = [table(architecture).macs for architecture in mutator.space.grid()]
    assert table.reachable("macs") == (min(macs), max(macs))


@pytest.mark.parametrize("limit", [3, 24])
def test_costs_of_widths_under_a_rule_are_exact(limit):
    x = torch.zeros(1, 8)
    layers = [nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)]
    net = searchable(nn.Sequential(*layers), x, rules=[widths(counts=(1, 2, 4, 8, 16), divisor=1)])
    first, second = Mutator(net).space.names
    mutator = Mutator(net, constraints=[Ref(first) + Ref(second) <= limit])
    table = CostTable.from_model(mutator, x)
    costs = []
    for architecture in mutator.space.grid():
        counted = count(export(net, architecture, mutator=mutator), x)
        assert (table(architecture).macs, table(architecture).params) == (counted.macs, counted.params)
        costs.append(counted.macs)
    assert table.reachable("macs") == (min(costs), max(costs))


def test_where_constraints_tie_too_much_together_the_ends_still_obey():
    decisions = [Decision(f"depth{n}", (1, 2, 3, 4)) for n in range(20)]
    total = sum((Ref(d.name) for d in decisions[1:]), Ref("depth0"))
    space = SearchSpace(decisions, [total <= 50])
    factors = Factors((4,) * 20, {(n,): np.array([1, 2, 3, 4]) * (n + 1) for n in range(20)})
    table = table_of(space, factors)
    largest = table.largest("params")
    assert sum(largest.values()) == 50
    assert table.cheapest("params") == dict.fromkeys(space.names, 1)
    low, high = table.reachable("params")
    assert low == sum(range(1, 21))
    assert high == 4 * sum(range(1, 21)) >= table(largest).params
