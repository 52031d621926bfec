"""One definition of the DARTS space, searched by gradient or one path at a time."""

import copy

import pytest
import torch
from torch import nn

from mutorch.cost import CostTable, count
from mutorch.models import DARTS_MMRAZOR, DartsClsHead, DartsGenotype, ImageClassifier, darts_candidates, darts_setting
from mutorch.mutators import Mutator, group
from mutorch.registry import MODELS
from mutorch.subnet import export, load_fix_subnet
from mutorch.testing import check_export

OPERATIONS = ["DiffMutableOP", "OneShotMutableOP"]
SMALL = {"base_channels": 4, "num_layers": 3}
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def build_on_meta(config):
    with torch.device("meta"):
        return MODELS.build(config)


def bind_parameters(model):
    """A zero for every candidate, shared by decision; nothing is chosen."""
    parameters = {}
    for name, mutables in group(model)[1].items():
        parameters[name] = torch.zeros(mutables[0].num_choices, requires_grad=True)
        for mutable in mutables:
            mutable.set_forward_args(parameters[name])
    return parameters


def test_supernet_of_mmrazor_has_its_size(count_parameters):
    backbone = build_on_meta(
        {
            **darts_setting(),
            "mutable_cfg": {"type": "DiffMutableOP", "candidates": darts_candidates()},
            "norm_cfg": {"type": "BN", "affine": False},
        }
    )
    assert count_parameters(backbone) + count_parameters(DartsClsHead(10, 256)) == 2003738


@pytest.mark.parametrize("mutable", OPERATIONS)
def test_cells_of_a_kind_share_36_decisions(mutable):
    groups = Mutator(build_on_meta(darts_setting(mutable=mutable))).search_groups
    assert {name[:6]: len(mutables) for name, mutables in groups.items()} == {"normal": 6, "reduce": 2}
    assert len(groups) == 36
    assert sum(mutables[0].num_choices for mutables in groups.values()) == 252


@pytest.mark.parametrize("mutable", OPERATIONS)
def test_space_without_zero_has_the_size_of_the_paper(mutable):
    setting = darts_setting(mutable=mutable, **SMALL)
    with_zero = Mutator(build_on_meta(setting)).space.size
    del setting["mutable_cfg"]["candidates"]["zero"]
    assert Mutator(build_on_meta(setting)).space.size == (180 * 7**8) ** 2
    assert with_zero == (180 * 8**8) ** 2


@pytest.mark.parametrize("mutable", OPERATIONS)
def test_building_leaves_the_configs_as_they_were(mutable):
    setting = darts_setting(mutable=mutable, **SMALL)
    before = copy.deepcopy(setting)
    build_on_meta(setting)
    assert setting == before


@pytest.mark.parametrize("mutable", OPERATIONS)
@pytest.mark.parametrize("seed", range(2))
def test_random_architectures_run_forward_and_backward(mutable, seed):
    backbone = MODELS.build(darts_setting(mutable=mutable, **SMALL))
    mutator = Mutator(backbone)
    mutator.set_choices(mutator.sample_choices(rng=seed))
    (feature,) = backbone(X)
    feature.square().sum().backward()
    assert feature.shape == (2, 64, 2, 2)
    assert all(p.grad is not None for p in backbone.cells[-1].preproc1.parameters())


@pytest.mark.parametrize("mutable", OPERATIONS)
def test_exported_architectures_equal_the_supernet(mutable):
    check_export(MODELS.build(darts_setting(mutable=mutable, **SMALL)), X, num_architectures=3)


def test_exported_network_is_the_one_built_from_the_genotype():
    setting = darts_setting(mutable="OneShotMutableOP", **SMALL)
    supernet = MODELS.build(setting).eval()
    mutator = Mutator(supernet)
    architecture = mutator.sample_choices(rng=0)
    exported = export(supernet, architecture, mutator=mutator)
    rebuilt = MODELS.build({**setting, "genotype": DartsGenotype.from_architecture(architecture)}).eval()
    rebuilt.load_state_dict(exported.state_dict())
    assert torch.equal(rebuilt(X)[0], exported(X)[0])


@pytest.mark.parametrize("mutable", OPERATIONS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_subnet_files_of_mmrazor_give_the_published_network(mutable, wrapped, count_parameters):
    setting = darts_setting(mutable=mutable, base_channels=36, num_layers=20)
    setting["mutable_cfg"]["candidates"] = darts_candidates()
    backbone = build_on_meta({**setting, "norm_cfg": {"type": "BN"}})
    subnet = {
        name: {"chosen": [choice] if wrapped and isinstance(choice, str) else choice}
        for name, choice in DARTS_MMRAZOR.architecture().items()
    }
    load_fix_subnet(backbone, subnet)
    assert count_parameters(backbone) + count_parameters(DartsClsHead(10, 576)) == 2948014


@pytest.mark.parametrize("mutable", OPERATIONS)
def test_cost_table_has_the_costs_of_exported_networks(mutable):
    backbone = MODELS.build(darts_setting(mutable=mutable, **SMALL))
    mutator = Mutator(backbone)
    table = CostTable.from_model(mutator, X[:1])
    for seed in range(3):
        architecture = mutator.sample_choices(rng=seed)
        assert table(architecture) == count(export(backbone, architecture, mutator=mutator), X[:1])


def test_gradients_reach_every_weight_and_every_architecture_parameter():
    setting = {**darts_setting(**SMALL), "auxliary": True, "aux_channels": 4, "aux_out_channels": 8}
    model = ImageClassifier(setting, DartsClsHead(10, 64, aux_in_channels=8))
    parameters = bind_parameters(model)
    labels = torch.tensor([1, 2])
    logits, auxiliary = model(torch.randn(2, 3, 32, 32))
    loss = nn.functional.cross_entropy(logits, labels) + 0.4 * nn.functional.cross_entropy(auxiliary, labels)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    # A route of two edges with equal outputs would give none: these differ.
    assert [name for name, p in parameters.items() if p.grad.abs().sum() == 0] == []
    assert sum(len(p) for p in parameters.values()) == 252


def test_mixture_of_a_cell_is_the_weighted_sum_of_its_operations():
    backbone = MODELS.build(darts_setting(**SMALL)).eval()
    bind_parameters(backbone)
    route = backbone.cells[0].nodes[0]
    inputs = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)]
    edges = route.candidates.values()
    expected = sum(op(x) / 16 for edge, x in zip(edges, inputs, strict=True) for op in edge.candidates.values())
    torch.testing.assert_close(route(inputs), expected)
