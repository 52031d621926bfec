import pytest
import torch
from torch import nn

from mutorch.channels import searchable, widths
from mutorch.cost import CostTable
from mutorch.errors import CostError, InfeasibleBudgetError
from mutorch.mutators import Mutator
from mutorch.pruning import Prices, by_score, uniform


@pytest.fixture
def mutator():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    return Mutator(searchable(model, torch.zeros(1, 4), rules=[widths(counts=range(1, 9), divisor=1)]))


def test_prices_are_the_same_with_a_table_and_by_counting(mutator, monkeypatch):
    tabled = Prices(mutator, torch.zeros(1, 4))

    def refuse(*args, **kwargs):
        raise CostError("no table")

    monkeypatch.setattr(CostTable, "from_model", refuse)
    counted = Prices(mutator, torch.zeros(1, 4))
    assert tabled.table is not None
    assert counted.table is None
    for architecture in ({}, {"0": 3}, {"0": 5, "2": 1}):
        assert tabled(architecture) == counted(architecture)
    assert tabled.reachable("params") == counted.reachable("params")


def test_a_smallest_share_bounds_what_is_reachable(mutator):
    prices = Prices(mutator, torch.zeros(1, 4), min_ratio=0.5)
    assert prices.widths == {"0": [4, 5, 6, 7, 8], "2": [4, 5, 6, 7, 8]}
    assert prices.reachable("macs") == (48, 128)
    with pytest.raises(InfeasibleBudgetError, match="the space reaches from 48 to 128"):
        prices.budget({"macs": 47})


def test_bounds_that_only_together_cannot_be_met_are_named(mutator):
    prices = Prices(mutator, torch.zeros(1, 4), min_ratio=0.5)
    budget = prices.budget({"macs": "50%", "params": (140, None)})
    with pytest.raises(InfeasibleBudgetError, match="no widths were found within"):
        uniform(prices, budget, {})


def test_global_allocation_takes_from_the_unit_with_many_unimportant_channels(mutator):
    prices = Prices(mutator, torch.zeros(1, 4))
    scores = {"0": torch.tensor([4.0, 4, 4, 4, 0, 0, 0, 0]), "2": torch.ones(8)}
    assert by_score(prices, prices.budget({"macs": 80}), scores) == {"0": 4, "2": 8}
    assert by_score(prices, prices.budget({"macs": "100%"}), scores) == {"0": 8, "2": 8}


def test_scores_of_another_scale_change_nothing(mutator):
    prices = Prices(mutator, torch.zeros(1, 4))
    budget = prices.budget({"macs": "60%"})
    scores = {"0": torch.rand(8, generator=torch.Generator().manual_seed(0)), "2": torch.arange(1.0, 9.0)}
    scaled = {"0": 100 * scores["0"], "2": scores["2"]}
    assert by_score(prices, budget, scores) == by_score(prices, budget, scaled)


def test_the_whole_budget_is_used_by_both(mutator):
    prices = Prices(mutator, torch.zeros(1, 4))
    scores = {"0": torch.arange(8.0), "2": torch.arange(8.0)}
    for share in range(10, 101, 10):
        budget = prices.budget({"macs": f"{share}%"})
        for allocate in (uniform, by_score):
            found = allocate(prices, budget, scores)
            assert prices.fits(budget, found)
            wider = [{**found, name: width + 1} for name, width in found.items() if width < 8]
            assert not any(prices.fits(budget, architecture) for architecture in wider)
