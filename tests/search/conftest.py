import pytest
import torch
from torch import nn

from mutorch.cost import CostTable
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.subnet.export import record_of


class Toy:
    """A space with a known best: blocks of four widths, of which `goal` says the wanted ones."""

    def __init__(self, blocks=8):
        widths = {"none": None, "thin": 1, "wide": 2, "huge": 4}
        self.net = nn.Sequential(
            *(
                OneShotMutableOP({name: self.layer(width) for name, width in widths.items()}, alias=f"b{number}")
                for number in range(blocks)
            )
        )
        self.mutator = Mutator(self.net)
        self.space = self.mutator.space
        self.example_inputs = torch.zeros(1, 2)
        self.table = CostTable.from_model(self.mutator, self.example_inputs)
        self.goal = self.space.sample(7)
        self.evaluated = []

    @staticmethod
    def layer(width):
        if width is None:
            return nn.Identity()
        return nn.Sequential(nn.Linear(2, width, bias=False), nn.Linear(width, 2, bias=False))

    def score(self, architecture):
        """How many blocks are as wanted; later ones count a little more."""
        return sum((1 + n / 100) * (architecture[name] == self.goal[name]) for n, name in enumerate(self.space.names))

    def evaluate(self, model):
        """What a user writes: it sees an exported model, which knows its architecture."""
        architecture = record_of(model)["architecture"]
        self.evaluated.append(tuple(architecture.values()))
        return self.score(architecture)


@pytest.fixture
def toy():
    return Toy()


@pytest.fixture
def make_toy():
    return Toy
