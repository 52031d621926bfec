import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from mutorch.errors import RegistryError
from mutorch.models import chain_net
from mutorch.mutables import DiffMutableOP, OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.registry import MODELS

TABLE = Path(__file__).parents[1] / "data" / "tabular_digits.csv"
OPERATIONS = ("skip", "maxpool", "separable", "conv3x3")
X = torch.randn(2, 1, 10, 10, generator=torch.Generator().manual_seed(0))


def test_all_256_architectures_have_the_sizes_of_the_table(count_macs, count_parameters):
    with TABLE.open() as file:
        table = {row["arch"]: (int(row["params"]), int(row["macs"])) for row in csv.DictReader(file)}
    with torch.device("meta"):
        model = chain_net()
    mutator = Mutator(model)
    blocks = [mutables[0] for mutables in mutator.search_groups.values()]
    fixed = count_parameters(model) - sum(count_parameters(block) for block in blocks)
    counted = {}
    for code in table:
        chosen = [OPERATIONS[int(digit)] for digit in code]
        mutator.set_choices(dict(zip(mutator.space.names, chosen, strict=True)))
        modules = [block.candidates[name] for block, name in zip(blocks, chosen, strict=True)]
        counted[code] = (fixed + sum(map(count_parameters, modules)), count_macs(model, 1, 1, 10, 10))
    assert len(counted) == 256
    assert counted == table


def test_configs_name_it_and_candidates_are_in_order():
    model = MODELS.build({"type": "ChainNet", "num_classes": 4, "in_channels": 3})
    space = Mutator(model).space
    assert [(d.name, d.choices) for d in space] == [(f"block{n}", OPERATIONS) for n in range(4)]
    assert model(torch.ones(2, 3, 12, 12)).shape == (2, 4)


def test_it_is_made_of_torch_layers_and_mutables_alone():
    modules = [m for m in chain_net().modules() if not isinstance(m, OneShotMutableOP)]
    assert {type(module).__module__.split(".")[0] for module in modules} == {"torch"}
    assert isinstance(chain_net(), nn.Sequential)


@pytest.mark.parametrize("seed", range(3))
def test_random_architectures_run_forward_and_backward(seed):
    model = chain_net()
    mutator = Mutator(model)
    mutator.set_choices(mutator.sample_choices(rng=seed))
    nn.functional.cross_entropy(model(X), torch.tensor([1, 2])).backward()
    assert model.stem[0].weight.grad.abs().sum() > 0


def test_a_config_names_what_makes_a_block():
    net = MODELS.build({"type": "ChainNet", "mutable": "DiffMutableOP"})
    assert isinstance(net.block0, DiffMutableOP)
    with pytest.raises(RegistryError, match="did you mean 'DiffMutableOP'"):
        MODELS.build({"type": "ChainNet", "mutable": "DifMutableOP"})
