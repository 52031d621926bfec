import pytest
import torch
from torch import nn

from mutorch import CostTable, Mutator, count, export
from mutorch.errors import CostError
from mutorch.mutables import ValueChoice
from mutorch.ops import layer

STAGES = 5


class Stages(nn.Module):
    """Stages whose costs each depend on a width before, a kernel and a width after."""

    def __init__(self):
        super().__init__()
        widths = [ValueChoice([2, 4, 6], label=f"width{number}") for number in range(STAGES + 1)]
        kernels = [ValueChoice([1, 3, 5], label=f"kernel{number}") for number in range(STAGES)]
        self.stem = layer(nn.Conv2d, 1, widths[0], 1)
        self.stages = nn.Sequential(
            *(
                layer(nn.Conv2d, before, after, kernel, padding=kernel // 2)
                for before, after, kernel in zip(widths, widths[1:], kernels, strict=False)
            )
        )

    def forward(self, x):
        return self.stages(self.stem(x))


X = torch.ones(1, 1, 6, 6)


def test_operations_far_apart_are_observed_in_the_same_forwards():
    net = Stages()
    mutator = Mutator(net)
    apart = STAGES * 3 * 3 * 3  # choices of all stages, one after the other: 135
    table = CostTable.from_model(mutator, X, max_observations=apart * 2 // 3)
    for seed in range(10):
        architecture = mutator.space.sample(seed)
        assert table(architecture) == count(export(net, architecture), X)


def test_what_acts_on_each_other_still_has_a_limit():
    with pytest.raises(CostError, match="raise max_observations"):
        CostTable.from_model(Mutator(Stages()), X, max_observations=20)
