"""A searchable model, from budget to the best subnet."""

import torch
from torch import nn

import mutorch
from mutorch.channels import depth, searchable, widths
from mutorch.cost import count

X = torch.zeros(1, 3, 8, 8)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(24, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))

    def forward(self, x):
        return (x + self.second(self.first(x))).relu()


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(*(Block() for _ in range(3)))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def test_a_search_of_widths_stays_within_its_budget_and_ends_with_a_plain_model():
    net = searchable(ResNet(), X, rules=[widths(), depth("blocks")])
    mutator = mutorch.Mutator(net)
    limit = count(mutorch.export(net, mutator.space.max).eval(), X).macs / 2
    evaluated = []

    def evaluate(model):
        evaluated.append(count(model, X).macs)
        return -abs(evaluated[-1] - limit)

    history = mutorch.search(
        net, mutator, evaluate, budget={"macs": "50%"}, example_inputs=X, num_trials=5, calibrate=False
    )
    assert [trial.costs.macs for trial in history.trials] == evaluated
    assert len(evaluated) == 5
    assert max(evaluated) <= limit
    best = mutorch.export(net, history.best.architecture)
    assert not any(isinstance(module, mutorch.mutables.BaseMutable) for module in best.modules())
    assert best.eval()(X).shape == (1, 4)
