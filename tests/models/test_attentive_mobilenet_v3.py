import pytest
import torch
from torch import nn

from mutorch import CostTable, Mutator, count, export
from mutorch.errors import ChoiceError, ConfigError
from mutorch.models import (
    AttentiveMobileNetV3,
    MBBlock,
    attentive_nas_architecture,
    attentive_nas_setting,
    ofa_mobilenet_v3_setting,
)
from mutorch.ops import DynamicOp, OFAConv2d, set_execution_
from mutorch.registry import MODELS
from mutorch.testing import check_export

RANGES = {
    "kernel_size": [[3, 5, 2], [3, 7, 2]],
    "num_blocks": [[1, 2, 1], [1, 2, 1]],
    "expand_ratio": [[1, 1, 1], {"choices": [3, 4, 6]}, [6, 6, 1]],
    "num_out_channels": [[8, 16, 8], [8, 16, 8], [16, 24, 8], [32, 64, 32]],
}
STAGES = {"stride_list": [1, 2], "with_se_list": [False, True], "out_indices": (2,)}
KINDS = {
    "as in AttentiveNAS": {},
    "without attentive shortcuts": {"with_attentive_shortcut": False},
    "every block on its own": {"fine_grained_mode": True, "conv_cfg": {"type": "OFAConv2d"}},
}
X = torch.randn(2, 3, 22, 18, generator=torch.Generator().manual_seed(0))


def small(**kwargs):
    torch.manual_seed(0)
    return AttentiveMobileNetV3(RANGES, **{**STAGES, **kwargs})


def trained_(net):
    """Weights, statistics and matrices of kernels that no initialization gives."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
            if tensor.is_floating_point() and "mutable_attrs" not in name:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.2 + 0.1)
    return net


@pytest.mark.parametrize("kind", KINDS)
def test_exported_networks_compute_what_the_supernet_computes(kind):
    check_export(trained_(small(**KINDS[kind])), X, num_architectures=6)


@pytest.mark.parametrize("kind", ["as in AttentiveNAS", "every block on its own"])
def test_cost_tables_say_what_exported_networks_cost(kind):
    with torch.device("meta"):
        net, x = small(**KINDS[kind]), torch.empty(1, 3, 32, 32)
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, x)
    for seed in range(5):
        architecture = mutator.space.sample(seed)
        assert table(architecture) == count(export(net, architecture, mutator=mutator), x)


@pytest.mark.parametrize("seed", range(2))
def test_training_reaches_what_is_active_and_nothing_else(seed):
    net = small(fine_grained_mode=True)
    mutator = Mutator(net)
    architecture = {**mutator.space.sample(seed), "backbone.layers.2.depth": 1}
    mutator.set_choices(architecture)
    (feature,) = net.train()(X)
    feature.square().sum().backward()
    assert feature.shape == (2, architecture["backbone.last_channels"], 1, 1)
    stem = net.first_conv.conv._parameters["weight"].grad
    active = architecture["backbone.first_channels"]
    assert stem[:active].any()
    assert not stem[active:].any()
    assert all(parameter.grad is None for parameter in net.layer2[1].parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_masked_execution_computes_the_same(kind):
    net = trained_(small(**KINDS[kind])).eval()
    mutator = Mutator(net)
    architecture = mutator.space.sample(3)
    exported = export(net, architecture, mutator=mutator)
    mutator.set_choices(architecture)
    set_execution_(net, "mask")
    width = architecture["backbone.last_channels"]
    assert torch.allclose(net(X)[0][:, :width], exported(X)[0], rtol=1e-4)


def test_decisions_are_of_a_stage_or_of_a_block():
    names = set(Mutator(small()).space.names)
    assert {"backbone.first_channels", "backbone.layers.1.depth", "backbone.layers.2.expand_ratio"} <= names
    fine = Mutator(small(fine_grained_mode=True)).space
    assert {"backbone.layers.2.0.expand_ratio", "backbone.layers.2.1.kernel_size"} <= set(fine.names)
    assert "backbone.layers.1.expand_ratio" not in names  # one choice is no decision


def test_an_architecture_that_differs_beyond_the_depth_is_the_same():
    space = Mutator(small(fine_grained_mode=True)).space
    shallow = {**space.max, "backbone.layers.2.depth": 1}
    other = {**shallow, "backbone.layers.2.1.kernel_size": 3}
    assert space.canonical(shallow) == space.canonical(other)


def test_the_shortcut_has_a_convolution_only_where_widths_differ():
    net = small()
    same = Mutator(net).space.min
    assert len(export(net, same).layer1[0].shortcut.project) == 0
    wider = export(net, {**same, "backbone.layers.1.out_channels": 16}).layer1[0].shortcut.project
    assert [type(module) for module in wider] == [nn.Conv2d]
    assert wider[0].weight.shape == (16, 8, 1, 1)


def test_smaller_kernels_go_through_learned_matrices():
    net = small(conv_cfg={"type": "OFAConv2d"})
    conv = net.layer2[0].depthwise_conv.conv
    assert type(conv) is OFAConv2d
    assert {name for name, _ in conv.named_parameters()} == {"weight", "trans_matrix_7to5", "trans_matrix_5to3"}


@pytest.mark.parametrize(
    ("name", "resolution", "millions"),
    [
        ("A0", 192, 203),
        ("A1", 224, 279),
        ("A2", 224, 317),
        ("A3", 224, 357),
        ("A4", 256, 444),
        ("A5", 256, 491),
        ("A6", 288, 709),
    ],
)
def test_networks_of_attentive_nas_have_the_published_size(
    name, resolution, millions, count_macs, count_parameters, structure
):
    with torch.device("meta"):
        net = MODELS.build(attentive_nas_setting(resize=False))
    architecture = attentive_nas_architecture(name)
    assert architecture.pop("input_shape") == [resolution, resolution]
    subnet = export(net, architecture)
    found = count_parameters(subnet), count_macs(subnet, 1, 3, resolution, resolution)
    assert found[1] / 1e6 == pytest.approx(millions, abs=1)
    if name in ("A0", "A4"):
        assert found == structure(f"AttentiveNAS {name}")


def test_published_networks_are_in_the_space_with_resolutions():
    with torch.device("meta"):
        space = Mutator(MODELS.build(attentive_nas_setting())).space
    for name in ("A0", "A6"):
        space.validate(attentive_nas_architecture(name))
    smallest = {**space.min, "input_shape": [192, 192]}
    assert space.canonical(attentive_nas_architecture("A0")) == smallest


def test_a_network_that_was_not_published_is_refused():
    with pytest.raises(ChoiceError, match="AttentiveNAS has no network 'A7'; did you mean 'A6'"):
        attentive_nas_architecture("A7")


def test_once_for_all_has_the_published_number_of_architectures():
    with torch.device("meta"):
        space = Mutator(MODELS.build(ofa_mobilenet_v3_setting())).space
    assert space.size == (9**2 + 9**3 + 9**4) ** 5
    assert f"{space.size:.2e}" == "2.18e+19"


def test_the_largest_network_of_once_for_all_has_the_published_size(count_parameters):
    with torch.device("meta"):
        net = MODELS.build(ofa_mobilenet_v3_setting())
        x = torch.empty(1, 3, 256, 256)
    largest = export(net, Mutator(net).space.max)
    assert count_parameters(largest) == 7_664_760  # 7.6M in Once-for-All's own list
    assert count(largest, x, convention="mmr").macs == 772_287_648


@pytest.mark.parametrize(("factor", "last"), [(1.0, (960, 1280)), (1.2, (1152, 1536))])
def test_widths_grow_by_a_factor_and_stay_divisible_by_8(factor, last):
    with torch.device("meta"):
        net = MODELS.build(ofa_mobilenet_v3_setting(factor))
    mix = net.backbone.last_conv.feature_mix_layer.conv
    assert (mix.in_channels, mix.out_channels) == last
    assert net.head.fc.in_features == last[1]


def test_stages_can_be_frozen_and_norms_kept():
    net = small(frozen_stages=1).train()
    assert [any(p.requires_grad for p in getattr(net, name).parameters()) for name in net.layers] == [False, True, True]
    assert not net.first_conv.training
    assert not any(p.requires_grad for p in net.first_conv.parameters())
    kept = small(norm_eval=True).train()
    assert {module.training for module in kept.modules() if isinstance(module, nn.BatchNorm2d)} == {False}


def test_outputs_are_those_of_the_indices():
    assert [tuple(feature.shape) for feature in small(out_indices=(0, 2))(X)] == [(2, 16, 11, 9), (2, 64, 1, 1)]


def test_initial_weights_cover_the_largest_network_whatever_is_chosen():
    whole, narrow = small(), small()
    Mutator(narrow).set_choices(Mutator(narrow).space.min)
    for net in (whole, narrow):
        net.init_weights(torch.Generator().manual_seed(0))
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), narrow.parameters(), strict=True))
    blocks = [module for module in whole.modules() if isinstance(module, MBBlock)]
    assert blocks
    assert not any(block.linear_conv.bn._parameters["weight"].any() for block in blocks)
    assert whole.layer1[0].depthwise_conv.bn.weight.all()


def test_exported_networks_are_plain():
    net = small()
    assert not any(isinstance(module, DynamicOp) for module in export(net).modules())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kernel_size": [[3, 5, 2]]}, "kernel_size must have 2 entries, one for each stage"),
        ({"kernel_size": [[3, 6, 2], [3, 5, 2]]}, r"range \[3, 6, 2\]: steps of 2 from 3 do not end at 6"),
        ({"num_blocks": [[2, 1, 1], [1, 2, 1]]}, r"num_blocks must be ranges \[min, max, step\]"),
        ({"num_blocks": [{"values": [1]}, [1, 2, 1]]}, r"num_blocks must be ranges .* got \{'values': \[1\]\}"),
        ({"kernel": []}, "arch_setting has no 'kernel'; did you mean 'kernel_size'"),
    ],
)
def test_ranges_that_are_none_are_refused(changed, message):
    with pytest.raises(ConfigError, match=message):
        AttentiveMobileNetV3({**RANGES, **changed}, **STAGES)


def test_a_missing_range_is_named():
    with pytest.raises(ConfigError, match="arch_setting lacks 'expand_ratio'"):
        AttentiveMobileNetV3({key: given for key, given in RANGES.items() if key != "expand_ratio"}, **STAGES)


@pytest.mark.parametrize("name", ["stride_list", "with_se_list", "act_cfg_list"])
def test_lists_of_another_length_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} must have"):
        small(**{name: [1]})
