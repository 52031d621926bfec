import numpy as np
import pytest
import torch
from torch import nn

from mutorch.cost import CostTable
from mutorch.models import chain_net
from mutorch.mutables import DiffMutableOP, OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.search import expected_cost
from mutorch.space import random_at


def build():
    torch.manual_seed(0)
    net = chain_net(mutable=DiffMutableOP)
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, torch.zeros(1, 1, 10, 10))
    mutator.prepare_arch_params()
    for parameter in mutator.arch_parameters():
        parameter.data = torch.randn(4, generator=torch.Generator().manual_seed(len(parameter)))
    return mutator, table


@pytest.mark.parametrize("metric", ["macs", "params", "act_mem_mb"])
def test_it_is_the_mean_cost_of_ten_thousand_samples(metric):
    mutator, table = build()
    drawn = [mutator.sample_probable(random_at(0, "sample", number)) for number in range(10_000)]
    costs = table.evaluate(np.array([table.space.encode(one) for one in drawn]), metric)
    share = costs / table(table.largest(metric))[metric]
    error = share.std() / 100
    assert float(expected_cost(mutator, table, metric).detach()) == pytest.approx(share.mean(), abs=4 * error)


def test_it_is_the_mean_over_all_architectures_exactly():
    mutator, table = build()
    probabilities = mutator.probabilities()
    total = 0.0
    for architecture in table.space.grid():
        share = table(architecture).macs / table(table.largest()).macs
        for name, choice in architecture.items():
            share *= float(probabilities[name][table.space[name].choices.index(choice)])
        total += share
    assert float(expected_cost(mutator, table).detach()) == pytest.approx(total)


def test_its_gradient_moves_probability_to_what_is_cheaper():
    mutator, table = build()
    optimizer = torch.optim.SGD(mutator.arch_parameters(), lr=20.0)
    for _ in range(50):
        torch.autograd.backward(expected_cost(mutator, table))
        optimizer.step()
        optimizer.zero_grad()
    assert table(mutator.argmax()).macs == table(table.cheapest()).macs


def test_decisions_that_are_not_learned_count_as_they_are_set():
    def conv(width):
        return nn.Sequential(nn.Conv2d(4, width, 1, bias=False), nn.Conv2d(width, 4, 1, bias=False))

    kinds = (DiffMutableOP, OneShotMutableOP)
    net = nn.Sequential(*(kind({"large": conv(8), "small": conv(4)}) for kind in kinds))
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, torch.zeros(1, 4, 2, 2))
    mutator.prepare_arch_params()
    for choice, expected in (("large", (1 + 0.75) / 2), ("small", (0.75 + 0.5) / 2)):
        net[1].current_choice = choice
        assert float(expected_cost(mutator, table).detach()) == pytest.approx(expected, abs=1e-3)
