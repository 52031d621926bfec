"""The cell of NAS-Bench-201 in its skeleton."""

import copy
import random

import pytest
import torch
from torch import nn

from mutorch.errors import ConfigError, SpaceError
from mutorch.models import NB201AvgPool, NB201Conv, NB201Net, nb201_architecture, nb201_name, nb201_setting
from mutorch.mutators import Mutator
from mutorch.registry import MODELS
from mutorch.testing import check_export

SMALL = {"base_channels": 4, "num_cells": 1}
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def subnet(operation):
    with torch.device("meta"):
        model = MODELS.build(nb201_setting())
    mutator = Mutator(model)
    mutator.fix_choices(dict.fromkeys(mutator.space.names, operation))
    return model


@pytest.mark.parametrize(("name", "operation"), [("NB201 all conv3x3", "nor_conv_3x3"), ("NB201 none x6", "none")])
def test_extremes_have_the_size_of_the_benchmark(name, operation, structure, count_macs, count_parameters):
    model = subnet(operation)
    assert (count_parameters(model), count_macs(model, 1, 3, 32, 32)) == structure(name)


def test_fifteen_cells_share_six_decisions():
    mutator = Mutator(MODELS.build(nb201_setting()))
    assert mutator.space.names == ("n1_p0", "n2_p0", "n2_p1", "n3_p0", "n3_p1", "n3_p2")
    assert mutator.space.size == 15625
    assert {len(mutables) for mutables in mutator.search_groups.values()} == {15}


def test_every_edge_reads_its_own_node():
    model = MODELS.build(nb201_setting(**SMALL)).eval()
    mutator = Mutator(model)
    mutator.set_choices(
        nb201_architecture("|nor_conv_1x1~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|avg_pool_3x3~2|")
    )
    cell, x = model.layers[0], torch.randn(2, 4, 8, 8)
    edges = {name: edge.chosen_module(edge.current_choice) for name, edge in cell.edges.items()}
    node2 = edges["n2_p1"](edges["n1_p0"](x))
    assert torch.allclose(cell(x), x + edges["n3_p2"](node2), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_random_architectures_run_forward_and_backward(seed):
    model = MODELS.build(nb201_setting(**SMALL))
    mutator = Mutator(model)
    mutator.set_choices(mutator.sample_choices(rng=seed))
    logits = model(X)
    nn.functional.cross_entropy(logits, torch.tensor([1, 2])).backward()
    assert logits.shape == (2, 10)
    assert model.stem.conv.weight.grad is not None


def test_exported_architectures_equal_the_supernet():
    check_export(MODELS.build(nb201_setting(**SMALL)), X)


def test_candidates_can_be_without_affine_norms_and_statistics():
    norm_cfg = {"type": "BN", "affine": False, "track_running_stats": False}
    setting = nb201_setting(norm_cfg=norm_cfg, **SMALL)
    before = copy.deepcopy(setting)
    model = MODELS.build(setting)
    norms = [m for m in model.layers[0].modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.affine, m.track_running_stats) for m in norms} == {(False, False)}
    assert model.stem.bn.affine
    assert before == setting


def test_names_of_the_benchmark_go_there_and_back():
    space = Mutator(MODELS.build(nb201_setting(**SMALL))).space
    rng = random.Random(0)
    for _ in range(20):
        architecture = space.sample(rng)
        assert nb201_architecture(nb201_name(architecture)) == architecture


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("|none~0|+|none~0|none~1|", "is written '|op~0|"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~1|", "is written"),
        ("none~0+none~0|none~1+none~0|none~1|none~2", "is written"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|conv~2|", "no operation 'conv'"),
    ],
)
def test_names_of_another_form_are_refused(name, message):
    with pytest.raises(SpaceError, match=message.replace("|", r"\|")):
        nb201_architecture(name)


def test_architectures_without_an_edge_have_no_name():
    with pytest.raises(SpaceError, match="no decision 'n2_p0'"):
        nb201_name({"n1_p0": "none"})


def test_edge_must_be_a_config_with_candidates():
    with pytest.raises(ConfigError, match="must be a config with `candidates`"):
        NB201Net({"type": "NB201Conv"})


def test_operations_halve_the_size_and_change_the_width():
    x = torch.ones(2, 4, 8, 8)
    assert NB201Conv(4, 6, 3, 2)(x).shape == (2, 6, 4, 4)
    assert NB201AvgPool(4, 6, 2)(x).shape == (2, 6, 4, 4)
    assert torch.equal(NB201AvgPool(4, 4)(x), x)


def test_the_same_definition_is_searched_by_gradient():
    model = MODELS.build(nb201_setting(mutable="DiffMutableOP", **SMALL))
    parameters = {name: torch.zeros(5, requires_grad=True) for name in Mutator(model).space.names}
    for name, mutables in Mutator(model).search_groups.items():
        for mutable in mutables:
            mutable.assign(None)
            mutable.set_forward_args(parameters[name])
    nn.functional.cross_entropy(model(X), torch.tensor([1, 2])).backward()
    assert [name for name, p in parameters.items() if p.grad is None or p.grad.abs().sum() == 0] == []
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    check_export(model, X, num_architectures=2)
