"""The published networks of DARTS, rebuilt from their cells."""

import pytest
import torch
from torch import nn

from mutorch.cost import count
from mutorch.errors import ChoiceError, ConfigError, SpaceError, StateError
from mutorch.models import (
    DARTS_MMRAZOR,
    DARTS_V1,
    DARTS_V2,
    DartsClsHead,
    DartsGenotype,
    DartsPoolBN,
    DropPath,
    FactorizedReduce,
    darts_network,
    darts_setting,
)
from mutorch.registry import MODELS

BN = {"type": "BN"}
IMAGENET = {"num_classes": 1000, "base_channels": 48, "num_layers": 14, "stem": "imagenet"}
CIFAR_IMAGE, IMAGENET_IMAGE = (1, 3, 32, 32), (1, 3, 224, 224)
SMALL = {"base_channels": 4, "num_layers": 3}
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def network(genotype, **options):
    with torch.device("meta"):
        return darts_network(genotype, **options)


@pytest.mark.parametrize(
    ("name", "options", "image"),
    [
        ("DARTS V2 CIFAR-10 (no aux)", {}, CIFAR_IMAGE),
        ("DARTS V2 ImageNet (48ch, 14 cells)", IMAGENET, IMAGENET_IMAGE),
    ],
)
def test_networks_of_the_paper_have_the_published_size(name, options, image, structure, count_macs, count_parameters):
    model = network("DARTS_V2", **options)
    assert (count_parameters(model), count_macs(model, *image)) == structure(name)


@pytest.mark.parametrize(
    ("genotype", "parameters", "macs", "flops"),
    [("DARTS_MMRAZOR", 2948014, 467782272, 483854976), ("DARTS_V2", 3351502, 528359040, 547749504)],
)
def test_networks_of_mmrazor_have_norms_after_pooling(genotype, parameters, macs, flops):
    model, image = network(genotype, pool_norm_cfg=BN), torch.empty(CIFAR_IMAGE, device="meta")
    costs = count(model, image)
    assert (costs.params, costs.macs) == (parameters, macs)
    assert count(model, image, convention="mmr").macs == flops


@pytest.mark.parametrize(("genotype", "parameters"), [("DARTS_MMRAZOR", 3424440), ("DARTS_V2", 3827928)])
def test_auxiliary_classifier_has_its_size(genotype, parameters, count_parameters):
    assert count_parameters(network(genotype, pool_norm_cfg=BN, auxiliary=True)) == parameters


def test_published_costs_of_mmrazor_hold_the_auxiliary_classifier_and_the_norms_of_convolutions(
    structure, count_macs, count_parameters
):
    model = network("DARTS_MMRAZOR", pool_norm_cfg=BN, auxiliary=True)
    operations = []

    def is_counted(path):
        return not any(
            isinstance(model.get_submodule(path.rpartition(".")[0]), kind) for kind in (DartsPoolBN, FactorizedReduce)
        )

    for path, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d) and is_counted(path):
            module.register_forward_hook(lambda _, args, out: operations.append(2 * out.numel()))
    macs = count_macs(model, *CIFAR_IMAGE)
    auxiliary = model.backbone.auxiliary
    macs += count_macs(auxiliary, 1, 576, 8, 8) + model.head.fc_aux.weight.numel()
    assert (count_parameters(model), macs + sum(operations)) == structure("DARTS MMRazor 97.32 with aux, pool BN")


def test_first_order_network_differs_from_the_second_order_one(count_parameters):
    assert count_parameters(network("DARTS_V1")) == 3169414


@pytest.mark.parametrize("genotype", [DARTS_V1, DARTS_V2, DARTS_MMRAZOR])
def test_network_trains_with_both_classifiers_and_is_used_with_one(genotype):
    model = darts_network(genotype, auxiliary=True, drop_path_rate=0.2, **SMALL)
    logits, auxiliary = model(X)
    labels = torch.tensor([1, 2])
    loss = nn.functional.cross_entropy(logits, labels) + 0.4 * nn.functional.cross_entropy(auxiliary, labels)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert model.eval()(X).shape == (2, 10)
    assert {m.rate for m in model.modules() if isinstance(m, DropPath)} == {0.2}


def test_auxiliary_classifier_does_not_change_the_logits():
    plain, helped = darts_network("DARTS_V2", **SMALL), darts_network("DARTS_V2", auxiliary=True, **SMALL)
    helped.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(plain.eval()(X), helped.eval()(X))


def test_imagenet_stem_reduces_by_eight_and_the_auxiliary_classifier_has_one_norm():
    model = darts_network("DARTS_V2", stem="imagenet", auxiliary=True, num_classes=5, **SMALL)
    before, last = model.backbone.stem(torch.zeros(2, 3, 224, 224))
    assert (before.shape, last.shape) == ((2, 4, 56, 56), (2, 4, 28, 28))
    assert [logits.shape for logits in model(torch.randn(2, 3, 224, 224))] == [(2, 5), (2, 5)]
    assert not hasattr(model.backbone.auxiliary, "bn2")


def test_genotype_is_read_from_a_searched_architecture_in_any_order():
    chosen = DARTS_V2.architecture()
    chosen["normal_n5"] = chosen["normal_n5"][::-1]
    rest = {"normal_n5_p1": "sep_conv_5x5", "normal_n5_p3": "zero"}
    assert DartsGenotype.from_architecture({**rest, **chosen}) == DARTS_V2


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"conv": "a"}, "no decision 'normal_n2'; allowed: 'conv'"),
        ({"normal_n2": ["normal_n2_p0"]}, "'normal_n2' chose .* like 'normal_n2_p0'"),
        ({"normal_n2": 3}, "'normal_n2' chose 3"),
    ],
)
def test_architectures_of_other_networks_are_refused(chosen, message):
    with pytest.raises(SpaceError, match=message):
        DartsGenotype.from_architecture(chosen)


@pytest.mark.parametrize("node", [[], [(0, "zero"), (0, "zero")], [(2, "zero")], [(-1, "zero")]])
def test_node_reads_different_tensors_before_it(node):
    with pytest.raises(SpaceError, match="node reduce_n2 reads different inputs from 0 to 1"):
        DartsGenotype(normal=[[(0, "zero")]], reduce=[node])


def test_unknown_genotype_is_refused():
    with pytest.raises(ChoiceError, match="no genotype 'DARTS_V3'; did you mean 'DARTS_V2'"):
        darts_network("DARTS_V3")


def test_operation_that_is_no_candidate_is_refused():
    genotype = DartsGenotype(normal=[[(0, "sep_conv_7x7")]], reduce=[[(0, "zero")]])
    with pytest.raises(ChoiceError, match="normal_n2 of the genotype has operation 'sep_conv_7x7'.*'sep_conv_3x3'"):
        darts_network(genotype, **SMALL)


def test_genotype_with_too_few_nodes_is_refused():
    genotype = DartsGenotype(normal=[[(0, "zero")]], reduce=[[(0, "zero")]])
    with pytest.raises(ConfigError, match="normal cell has 1 nodes"):
        darts_network(genotype, **SMALL)


@pytest.mark.parametrize(
    ("arguments", "message", "also"),
    [
        ({"out_indices": (7,)}, "from 0 to 2, got 7", ValueError),
        ({"out_indices": (0, 1)}, r"must end with the last cell, 2 of 3 layers, got \(0, 1\)", AssertionError),
        (
            {"auxliary": True, "aux_channels": 8},
            "needs aux_channels and aux_out_channels, got 8 and None",
            AssertionError,
        ),
        ({"stem": "mnist"}, "no stem 'mnist'; allowed: 'cifar', 'imagenet'", ValueError),
        ({"genotype": None, "route_cfg": None}, "give route_cfg to search.*or a genotype", AssertionError),
        ({"mutable_cfg": {"type": "DartsZero"}}, "mutable_cfg must be a config with `candidates`", AssertionError),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message, also):
    with pytest.raises(ConfigError, match=message) as error:
        MODELS.build({**darts_setting(genotype="DARTS_V2", **SMALL), **arguments})
    assert isinstance(error.value, also)


def test_features_of_several_cells_come_in_order_after_the_auxiliary_one():
    setting = {**darts_setting(genotype="DARTS_V2", **SMALL), "out_indices": (0, 2)}
    backbone = MODELS.build({**setting, "auxliary": True, "aux_channels": 3, "aux_out_channels": 5})
    assert [f.shape for f in backbone(X)] == [(2, 5, 1, 1), (2, 16, 32, 32), (2, 64, 8, 8)]
    assert [f.shape for f in backbone.eval()(X)] == [(2, 16, 32, 32), (2, 64, 8, 8)]


def test_head_misses_the_auxiliary_feature_in_training_only():
    head = DartsClsHead(4, 3, aux_in_channels=2)
    with pytest.raises(StateError, match="backbone gives no feature for it"):
        head((X,))
    assert head.eval()((X,)).shape == (2, 4)
