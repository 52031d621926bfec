"""The macro space of ENAS."""

import pytest
import torch

import mutorch
from mutorch.cost import CostTable, count
from mutorch.errors import ConfigError
from mutorch.models import EnasMacro
from mutorch.mutators import EnasMutator, Mutator
from mutorch.registry import MODELS
from mutorch.testing import check_export

X = torch.randn(2, 1, 10, 10, generator=torch.Generator().manual_seed(0))
OPERATIONS = ["conv3", "sep3", "conv5", "sep5", "avgpool", "maxpool"]


def small(num_layers=5):
    return EnasMacro(num_classes=4, in_channels=1, num_layers=num_layers, channels=4)


def test_exported_subnets_compute_what_the_supernet_computes():
    check_export(small(), X, num_architectures=8)


def test_costs_of_the_table_are_those_of_exported_subnets():
    net = small(4)
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, X)
    for seed in range(6):
        architecture = mutator.space.sample(seed)
        costs = count(mutorch.export(net, architecture), X)
        assert (table(architecture).macs, table(architecture).params) == (costs.macs, costs.params)


def test_the_default_space_is_that_of_the_paper():
    with torch.device("meta"):
        space = Mutator(EnasMacro()).space
    assert space.size == 6**12 * 2 ** (12 * 11 // 2)


def test_keys_say_the_layer():
    mutator = Mutator(small(3))
    assert mutator.space.names == ("layer_0", "layer_1", "layer_1_skip", "layer_2", "layer_2_skip")
    assert list(mutator.space["layer_2"].choices) == OPERATIONS
    assert list(mutator.space["layer_2_skip"].choices) == [[], "layer_0", "layer_1", ["layer_0", "layer_1"]]


def test_the_size_is_halved_after_a_third_and_two_thirds():
    net = EnasMacro(num_layers=12, channels=2)
    Mutator(net)
    sizes = []
    for layer in net.layers:
        layer.register_forward_hook(lambda *call: sizes.append(call[2].shape[2]))
    net(torch.zeros(2, 3, 16, 16))
    assert sizes == [16] * 4 + [8] * 4 + [4] * 4
    assert [len(halves) for halves in net.reductions.values()] == [4, 8]


def test_a_skip_adds_the_earlier_output():
    net = small(3).eval()
    mutator = Mutator(net)
    base = {name: mutator.space[name].default for name in mutator.space.names} | {
        "layer_1_skip": [],
        "layer_2_skip": [],
    }
    layer = net.layers[1]
    one, other = torch.randn(2, 1, 4, 6, 6, generator=torch.Generator().manual_seed(0)).expand(2, 2, 4, 6, 6)
    mutator.set_choices(base)
    without = layer(one, [other])
    assert torch.equal(without, layer.bn(layer.op(one)))
    mutator.set_choices({**base, "layer_1_skip": "layer_0"})
    assert torch.equal(layer(one, [other]), layer.bn(layer.op(one) + other))


def test_what_a_controller_draws_is_trained_and_exported():
    net = small(4)
    mutator = EnasMutator(net)
    for _ in range(3):
        mutator.reset()
        net(X).sum().backward()
        architecture = mutator.architecture()
        exported = mutorch.export(net, architecture).eval()
        assert torch.equal(net.eval()(X), exported(X))
        net.train()
    assert mutorch.export(net, mutator.export())(X).shape == (2, 4)


def test_an_exported_subnet_becomes_a_program():
    net = small(3)
    exported = mutorch.export(net, Mutator(net).space.sample(3)).eval()
    program = torch.export.export(exported, (X,)).module()
    assert torch.allclose(program(X), exported(X), atol=1e-6)


def test_a_config_builds_it():
    net = MODELS.build({"type": "EnasMacro", "num_layers": 3, "channels": 4})
    assert isinstance(net, EnasMacro)


def test_too_few_layers_for_three_stages_are_refused():
    with pytest.raises(ConfigError, match="num_layers of at least 3, got 2"):
        EnasMacro(num_layers=2)
