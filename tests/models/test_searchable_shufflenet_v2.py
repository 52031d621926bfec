# ruff: noqa: C408 (the guide writes dict(...))
import copy

import pytest
import torch
from torch import nn

from mutorch.errors import ConfigError
from mutorch.models import SearchableShuffleNetV2, ShuffleBlock
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.registry import MODELS

# Seed 000, "How to use existing mutables to configure searchable backbones", as written.
_STAGE_MUTABLE = dict(
    _scope_="mmrazor",
    type="OneShotMutableOP",
    candidates=dict(
        shuffle_3x3=dict(type="ShuffleBlock", kernel_size=3),
        shuffle_5x5=dict(type="ShuffleBlock", kernel_size=5),
        shuffle_7x7=dict(type="ShuffleBlock", kernel_size=7),
        shuffle_xception=dict(type="ShuffleXception"),
    ),
)

arch_setting = [
    # Parameters to build layers. 3 parameters are needed to construct a
    # layer, from left to right: channel, num_blocks, mutable_cfg.
    [64, 4, _STAGE_MUTABLE],
    [160, 4, _STAGE_MUTABLE],
    [320, 8, _STAGE_MUTABLE],
    [640, 4, _STAGE_MUTABLE],
]

nas_backbone = dict(_scope_="mmrazor", type="SearchableShuffleNetV2", widen_factor=1.0, arch_setting=arch_setting)

ROWS = [[8, 1, _STAGE_MUTABLE], [16, 2, _STAGE_MUTABLE], [24, 1, _STAGE_MUTABLE], [32, 1, _STAGE_MUTABLE]]
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def frozen(module):
    return not any(p.requires_grad for p in module.parameters()) and not any(m.training for m in module.modules())


def test_configs_of_the_guide_build_run_and_stay_as_they_were():
    before = copy.deepcopy(nas_backbone)
    backbone = MODELS.build(nas_backbone)
    assert len(Mutator(backbone).space) == 20
    (feature,) = backbone(X)
    assert feature.shape == (2, 1024, 2, 2)
    assert nas_backbone == before


def test_building_twice_from_one_list_gives_equal_networks():
    one, other = SearchableShuffleNetV2(ROWS), SearchableShuffleNetV2(ROWS)
    assert {k: v.shape for k, v in one.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}


@pytest.mark.parametrize("seed", range(3))
def test_random_architectures_learn_in_their_candidates_only(seed):
    backbone = SearchableShuffleNetV2(ROWS)
    mutator = Mutator(backbone)
    mutator.set_choices(mutator.sample_choices(rng=seed))
    backbone(X)[-1].sum().backward()
    for mutables in mutator.search_groups.values():
        for name, candidate in mutables[0].candidates.items():
            touched = [p.grad is not None for p in candidate.parameters()]
            assert touched == [name == mutables[0].current_choice] * len(touched)


def test_outputs_are_those_of_the_indices():
    backbone = SearchableShuffleNetV2(ROWS, out_indices=[0, 2, 4])
    Mutator(backbone)
    assert [tuple(feature.shape) for feature in backbone(X)] == [(2, 8, 16, 16), (2, 24, 4, 4), (2, 1024, 2, 2)]


def test_without_last_layer_the_stages_are_all():
    backbone = SearchableShuffleNetV2(ROWS, out_indices=(3,), with_last_layer=False)
    Mutator(backbone)
    assert backbone(X)[0].shape == (2, 32, 2, 2)
    assert len(backbone.layers) == 4


def test_widths_are_multiplied_and_rounded():
    backbone = SearchableShuffleNetV2(ROWS, stem_multiplier=2, widen_factor=1.5)
    assert backbone.conv1.conv.out_channels == 32
    assert backbone.layers[1][0].candidates["shuffle_3x3"].branch2[2].conv.out_channels == 12


def test_plain_blocks_work_too():
    backbone = SearchableShuffleNetV2([[8, 2, {"type": "ShuffleBlock", "kernel_size": 3}]], out_indices=(1,))
    assert all(isinstance(block, ShuffleBlock) for block in backbone.layers[0])
    assert not any(isinstance(module, OneShotMutableOP) for module in backbone.modules())
    assert backbone(X)[0].shape == (2, 1024, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_indices": (5,)}, "out_indices must each be from 0 to 4, got 5"),
        ({"out_indices": (-1,)}, "out_indices must each be from 0 to 4, got -1"),
        ({"out_indices": (4,), "with_last_layer": False}, "out_indices must each be from 0 to 3, got 4"),
        ({"frozen_stages": 5}, r"frozen_stages must be from -1 \(none\) to 4, got 5"),
        ({"frozen_stages": -2}, r"frozen_stages must be from -1 \(none\) to 4, got -2"),
        ({"frozen_stages": 4, "with_last_layer": False, "out_indices": (3,)}, "to 3, got 4"),
    ],
)
def test_stages_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message) as error:
        SearchableShuffleNetV2(ROWS, **arguments)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize("rows", [[[8, 1]], [[8, 1, 2, _STAGE_MUTABLE]], [_STAGE_MUTABLE]])
def test_rows_of_another_form_are_refused(rows):
    with pytest.raises(ConfigError, match=r"row 0 of arch_setting must be \[channel, num_blocks, mutable_cfg\]"):
        SearchableShuffleNetV2(rows)


def test_empty_settings_are_refused():
    with pytest.raises(ConfigError, match="arch_setting is empty"):
        SearchableShuffleNetV2([])


def test_built_module_as_block_is_refused():
    with pytest.raises(ConfigError, match="is a config with `type`, got ShuffleBlock"):
        SearchableShuffleNetV2([[8, 2, ShuffleBlock(8, 8, 3)]], out_indices=(1,))


@pytest.mark.parametrize("stages", [0, 2, 4])
def test_frozen_stages_stay_frozen_in_training(stages):
    backbone = SearchableShuffleNetV2(ROWS, frozen_stages=stages)
    for _ in range(2):
        assert frozen(backbone.conv1)
        assert [frozen(layer) for layer in backbone.layers] == [number < stages for number in range(5)]
        backbone.requires_grad_(True)
        backbone.eval().train()


def test_nothing_is_frozen_by_default():
    backbone = SearchableShuffleNetV2(ROWS)
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(m.training for m in backbone.modules())


def test_norm_eval_keeps_statistics_in_training():
    backbone = SearchableShuffleNetV2(ROWS, norm_eval=True).train()
    assert {m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)} == {False}
    assert backbone.training
    assert backbone.conv1.conv.training


def test_checkpoints_reach_every_block_and_keep_the_gradients():
    plain = SearchableShuffleNetV2(ROWS)
    saving = SearchableShuffleNetV2(ROWS, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    assert all(m.with_cp for m in saving.modules() if hasattr(m, "with_cp"))
    gradients = []
    for backbone in (plain, saving):
        mutator = Mutator(backbone)
        mutator.set_choices(mutator.sample_choices(rng=5))
        backbone(X)[-1].square().mean().backward()
        gradients.append({n: p.grad for n, p in backbone.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_initial_weights_have_the_said_scale_and_are_repeatable():
    backbone = SearchableShuffleNetV2(ROWS, norm_cfg={"type": "BN", "affine": False})
    backbone.init_weights(torch.Generator().manual_seed(0))
    stem, last = backbone.conv1.conv.weight, backbone.layers[4].conv.weight
    assert stem.std().item() == pytest.approx(0.01, rel=0.1)
    assert last.std().item() == pytest.approx(1 / 32, rel=0.02)
    norm = backbone.layers[0][0].candidates["shuffle_3x3"].branch2[0].bn
    assert torch.equal(norm.bias, torch.full_like(norm.bias, 1e-4))
    before = stem.clone()
    backbone.init_weights(torch.Generator().manual_seed(0))
    assert torch.equal(stem, before)


def test_initial_weights_stay_where_pretrained_ones_are_meant():
    backbone = SearchableShuffleNetV2(ROWS, init_cfg={"type": "Pretrained", "checkpoint": "file.pth"})
    before = backbone.conv1.conv.weight.clone()
    backbone.init_weights()
    assert torch.equal(backbone.conv1.conv.weight, before)
