"""The micro space of ENAS."""

import pytest
import torch

import mutorch
from mutorch.cost import CostTable, count
from mutorch.errors import ConfigError
from mutorch.models import EnasMicro
from mutorch.mutators import EnasMutator, Mutator
from mutorch.registry import MODELS
from mutorch.testing import check_export

X = torch.randn(2, 1, 10, 10, generator=torch.Generator().manual_seed(0))


def small(**options):
    return EnasMicro(num_classes=4, in_channels=1, **{"num_cells": 3, "channels": 2, "num_nodes": 2, **options})


def test_exported_subnets_compute_what_the_supernet_computes():
    check_export(small(), X, num_architectures=8)


def test_costs_of_the_table_are_those_of_exported_subnets():
    net = small()
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, X)
    for seed in range(6):
        architecture = mutator.space.sample(seed)
        costs = count(mutorch.export(net, architecture), X)
        assert (table(architecture).macs, table(architecture).params) == (costs.macs, costs.params)


def test_the_default_space_has_five_nodes_a_cell_and_two_kinds_of_cells():
    with torch.device("meta"):
        space = Mutator(EnasMicro()).space
    # Two inputs and two operations for each of five nodes, the inputs of 2 to 6 tensors, for two kinds of cells.
    cell = 1
    for tensors in range(2, 7):
        cell *= (tensors * 5) ** 2
    assert space.size == cell**2


def test_cells_of_one_kind_share_their_decisions():
    net = small()
    mutator = Mutator(net)
    kinds = [cell.key for cell in net.cells]
    assert kinds == ["normal", "reduce", "normal", "reduce", "normal"]
    assert len(mutator.space) == 2 * 2 * 4
    mutator.set_choices({name: mutator.space[name].choices[-1] for name in mutator.space.names})
    for cell in net.cells:
        assert cell.nodes[0].op_x.current_choice == "skip"
        assert cell.nodes[1].input_y.current_choice == 2


def test_widths_double_where_sizes_are_halved():
    net = small(num_cells=6)
    Mutator(net)
    shapes = []
    for cell in net.cells:
        cell.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape[1:3])))
    net(torch.zeros(2, 1, 16, 16))
    assert shapes == [(4, 16)] * 2 + [(8, 8)] * 3 + [(16, 4)] * 3


def test_a_node_adds_two_operations_on_the_tensors_that_it_takes():
    net = small().eval()
    mutator = Mutator(net)
    node = net.cells[0].nodes[1]
    choice = {"input_x": 2, "op_x": "maxpool", "input_y": 0, "op_y": "skip"}
    wanted = {f"normal_node_3_{name}": value for name, value in choice.items()}
    mutator.set_choices({**mutator.space.default, **wanted})
    tensors = list(torch.randn(3, 2, 2, 5, 5, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(node(tensors), torch.nn.functional.max_pool2d(tensors[2], 3, 1, 1) + tensors[0])


def test_a_controller_attends_to_the_nodes():
    net = small()
    mutator = EnasMutator(net)
    assert mutator.controller.unnamed.shape[0] == 2
    for _ in range(3):
        mutator.reset()
        net(X).sum().backward()
        exported = mutorch.export(net, mutator.architecture()).eval()
        assert torch.equal(net.eval()(X), exported(X))
        net.train()
    attention = mutator.controller.anchor.weight
    assert torch.autograd.grad(mutator.sample_log_prob, attention)[0].any()


def test_an_exported_subnet_becomes_a_program():
    net = small()
    exported = mutorch.export(net, Mutator(net).space.sample(3)).eval()
    program = torch.export.export(exported, (X,)).module()
    assert torch.allclose(program(X), exported(X), atol=1e-6)


def test_a_config_builds_it():
    assert isinstance(MODELS.build({"type": "EnasMicro", "num_cells": 3, "channels": 2}), EnasMicro)


def test_too_few_cells_for_three_stages_are_refused():
    with pytest.raises(ConfigError, match="num_cells of at least 3, got 2"):
        EnasMicro(num_cells=2)
