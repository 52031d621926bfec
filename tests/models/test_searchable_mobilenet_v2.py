import copy

import pytest
import torch
from torch import nn

from mutorch.channels import searchable, widths
from mutorch.errors import ConfigError
from mutorch.models import ImageClassifier, SearchableMobileNetV2, mobilenet_v2_setting
from mutorch.mutators import Mutator
from mutorch.registry import MODELS
from mutorch.testing import check_export

BLOCK = {
    "type": "OneShotMutableOP",
    "candidates": {
        "k3": {"type": "MBBlock", "kernel_size": 3, "expand_ratio": 2},
        "k5": {"type": "MBBlock", "kernel_size": 5, "expand_ratio": 2},
        "identity": {"type": "Identity"},
    },
}
ROWS = [[8, 1, 1, BLOCK], [8, 2, 2, BLOCK], [16, 1, 2, BLOCK], [16, 1, 2, BLOCK], [24, 1, 1, BLOCK]]
ROWS += [[32, 1, 2, BLOCK], [40, 1, 1, BLOCK]]
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def frozen(module):
    return not any(p.requires_grad for p in module.parameters()) and not any(m.training for m in module.modules())


def stages(backbone):
    return [getattr(backbone, name) for name in backbone.layers]


def test_stages_are_named_and_searchable():
    backbone = SearchableMobileNetV2(ROWS)
    assert backbone.layers == [f"layer{number}" for number in range(1, 8)] + ["conv2"]
    assert Mutator(backbone).space.names[:3] == ("layer1.0", "layer2.0", "layer2.1")


@pytest.mark.parametrize("seed", range(3))
def test_random_architectures_run_forward_and_backward(seed):
    before = copy.deepcopy(ROWS)
    backbone = SearchableMobileNetV2(ROWS)
    mutator = Mutator(backbone)
    mutator.set_choices(mutator.sample_choices(rng=seed))
    (feature,) = backbone(X)
    feature.sum().backward()
    assert feature.shape == (2, 1280, 2, 2)
    assert backbone.conv1.conv.weight.grad is not None
    assert before == ROWS


def test_outputs_are_those_of_the_indices():
    backbone = SearchableMobileNetV2(ROWS, out_indices=(0, 2, 6))
    Mutator(backbone)
    assert [tuple(feature.shape) for feature in backbone(X)] == [(2, 8, 32, 32), (2, 16, 8, 8), (2, 40, 2, 2)]


@pytest.mark.parametrize(("factor", "last"), [(0.5, 1280), (1.0, 1280), (1.5, 1920)])
def test_last_width_grows_but_does_not_shrink(factor, last):
    with torch.device("meta"):
        backbone = MODELS.build(mobilenet_v2_setting(factor))
    assert backbone.out_channel == backbone.conv2.conv.out_channels == last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_indices": (8,)}, "out_indices must each be from 0 to 7, got 8"),
        ({"frozen_stages": 8}, r"frozen_stages must be from -1 \(none\) to 7, got 8"),
        ({"frozen_stages": -2}, "to 7, got -2"),
    ],
)
def test_stages_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        SearchableMobileNetV2(ROWS, **arguments)


def test_rows_without_stride_are_refused():
    with pytest.raises(
        ConfigError, match=r"row 0 of arch_setting must be \[channel, num_blocks, stride, mutable_cfg\]"
    ):
        SearchableMobileNetV2([[8, 1, BLOCK]])


@pytest.mark.parametrize("count", [0, 3, 7])
def test_frozen_stages_stay_frozen_in_training(count):
    backbone = SearchableMobileNetV2(ROWS, frozen_stages=count).train()
    assert frozen(backbone.conv1)
    assert [frozen(stage) for stage in stages(backbone)] == [number < count for number in range(8)]


def test_norm_eval_keeps_statistics_in_training():
    backbone = SearchableMobileNetV2(ROWS, norm_eval=True).train()
    assert {m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)} == {False}
    assert backbone.conv2.conv.training


def test_checkpoints_reach_every_block():
    backbone = SearchableMobileNetV2(ROWS, with_cp=True)
    assert all(m.with_cp for m in backbone.modules() if hasattr(m, "with_cp"))
    Mutator(backbone)
    backbone(X)[-1].sum().backward()
    assert backbone.conv1.conv.weight.grad is not None


def test_initial_weights_are_kaiming_and_repeatable():
    backbone = SearchableMobileNetV2(ROWS)
    backbone.init_weights(torch.Generator().manual_seed(0))
    weight = backbone.conv2.conv.weight
    assert weight.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.02)
    before = weight.clone()
    backbone.init_weights(torch.Generator().manual_seed(0))
    assert torch.equal(weight, before)


def test_widths_of_the_plain_network_can_be_searched():
    head = {"type": "LinearClsHead", "num_classes": 10, "in_channels": 1280}
    plain = ImageClassifier(mobilenet_v2_setting(0.35), head)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net = searchable(plain, x, rules=[widths(ratios=(0.5, 1.0), divisor=8)])
    assert len(Mutator(net).space) == 25
    check_export(net, x, num_architectures=3)
