import pytest
import torch
from torch import nn

from mutorch import CostTable, Mutator, count, export
from mutorch.errors import ChoiceError, ConfigError
from mutorch.models import AutoformerBackbone, DropPath, autoformer_architecture, autoformer_setting
from mutorch.registry import MODELS
from mutorch.testing import check_export

RANGES = {"mlp_ratios": [3, 4, 0.5], "num_heads": [1, 2, 1], "depth": [1, 3, 1], "embed_dims": [16, 32, 8]}
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small(**kwargs):
    torch.manual_seed(0)
    backbone = {"type": "AutoformerBackbone", "arch_setting": RANGES, "img_size": 32, "patch_size": 8, **kwargs}
    head = {"type": "DynamicLinearClsHead", "num_classes": 10, "in_channels": 32}
    connected = {"connect_with_backbone": "backbone.last_mutable"}
    return MODELS.build(
        {"type": "SearchableImageClassifier", "backbone": backbone, "head": head, "connect_head": connected}
    )


@pytest.mark.parametrize("kwargs", [{}, {"relative_position": False, "use_final_norm": False, "qkv_bias": False}])
def test_exported_networks_compute_what_the_supernet_computes(kwargs):
    net = small(**kwargs)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    check_export(net, X, num_architectures=8)


def test_cost_tables_say_what_exported_networks_cost():
    net = small()
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, X[:1])
    for seed in range(6):
        architecture = mutator.space.sample(seed)
        assert table(architecture) == count(export(net, architecture, mutator=mutator), X[:1])


def test_a_subnet_has_the_first_features_of_the_supernet():
    net = small()
    subnet = export(net, {**Mutator(net).space.min, "backbone.blocks.0.num_heads": 2})
    whole = net.state_dict()
    shared = subnet.state_dict()
    assert subnet.backbone.blocks[0].attn.num_heads == 2
    assert {"backbone.tokens.pos_embed", "backbone.blocks.0.attn.w_qs.weight", "head.fc.weight"} <= set(shared)
    for name, tensor in shared.items():
        assert torch.equal(tensor, whole[name][tuple(slice(size) for size in tensor.shape)])


def test_training_reaches_what_is_active_and_nothing_else():
    net = small()
    mutator = Mutator(net)
    mutator.set_choices({**mutator.space.max, "backbone.embed_dims": 24, "backbone.depth": 2})
    net(X).square().sum().backward()
    positions = net.backbone.tokens._parameters["pos_embed"].grad
    assert positions[..., :24].any()
    assert not positions[..., 24:].any()
    assert all(parameter.grad is None for parameter in net.backbone.blocks[2].parameters())


@pytest.mark.parametrize("size", ["small", "base"])
def test_published_networks_have_the_published_size(size, count_macs, count_parameters, structure):
    name, architecture = f"AutoFormer-{size}", autoformer_architecture(size)
    with torch.device("meta"):
        net = MODELS.build(autoformer_setting(size))
        setting = autoformer_setting(size)
        # The published multiply-adds leave out the products with relative positions.
        setting["backbone"]["relative_position"] = False
        without = MODELS.build(setting)
    found = count_parameters(export(net, architecture)), count_macs(export(without, architecture), 1, 3, 224, 224)
    assert found == structure(name)


def test_a_network_of_the_base_space_has_the_size_that_others_report(count_parameters):
    blocks = [(10, 3.5)] * 3 + [(8, 4), (10, 3), (9, 3), (8, 3.5), (8, 3.5), (9, 4), (8, 4), (10, 4), (10, 4)]
    blocks += [(9, 4), (10, 4)]
    architecture = autoformer_architecture("base")
    for number, (heads, ratio) in enumerate(blocks):
        architecture |= {f"backbone.blocks.{number}.num_heads": heads, f"backbone.blocks.{number}.mlp_ratio": ratio}
    with torch.device("meta"):
        net = MODELS.build(autoformer_setting("base"))
    not_cut = (197 + 1) * (624 - 576)  # of positions and class token, which others leave as wide as the supernet's
    assert count_parameters(export(net, architecture)) == 54_549_736 - not_cut


def test_deeper_blocks_are_left_out_more_often():
    backbone = small(drop_path_rate=0.2).backbone
    assert [m.rate for m in backbone.modules() if isinstance(m, DropPath)] == pytest.approx([0.0, 0.1, 0.2])


def test_initial_weights_cover_the_largest_network_whatever_is_chosen():
    whole, narrow = small().backbone, small().backbone
    Mutator(narrow).set_choices(Mutator(narrow).space.min)
    for net in (whole, narrow):
        net.init_weights(torch.Generator().manual_seed(0))
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), narrow.parameters(), strict=True))
    assert whole.tokens.pos_embed.std().item() == pytest.approx(0.02, rel=0.2)
    assert {m.weight.min().item() for m in whole.modules() if isinstance(m, nn.LayerNorm)} == {1.0}


def test_images_that_patches_do_not_fill_are_refused():
    with pytest.raises(ConfigError, match="img_size 30 is no multiple of patch_size 8"):
        AutoformerBackbone(RANGES, img_size=30, patch_size=8)


def test_sizes_that_do_not_exist_are_refused():
    with pytest.raises(ChoiceError, match="AutoFormer has no space 'smal'; did you mean 'small'"):
        autoformer_setting("smal")
    with pytest.raises(ChoiceError, match="no network of AutoFormer is known as 'tiny'"):
        autoformer_architecture("tiny")
