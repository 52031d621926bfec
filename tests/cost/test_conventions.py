"""The figures that MMRazor's documents publish, and those of its single blocks, under the convention they are counted in."""

import pytest
import torch
from torch import nn

from mutorch.cost import CostTable, count
from mutorch.models import (
    Identity,
    ImageClassifier,
    MBBlock,
    ShuffleBlock,
    ShuffleXception,
    mobilenet_v2_setting,
    spos_mobilenet_setting,
    spos_shufflenet_setting,
)
from mutorch.mutators import Mutator

KERNELS = {"3": "shuffle_3x3", "5": "shuffle_5x5", "7": "shuffle_7x7", "x": "shuffle_xception"}


def classifier(setting, in_channels):
    with torch.device("meta"):
        return ImageClassifier(setting, {"type": "LinearClsHead", "num_classes": 1000, "in_channels": in_channels})


def image():
    return torch.zeros(1, 3, 224, 224, device="meta")


def table(setting, in_channels):
    return CostTable.from_model(Mutator(classifier(setting, in_channels)), image(), convention="mmr", num_checks=1)


@pytest.fixture(scope="module")
def shufflenet():
    return table(spos_shufflenet_setting(), 1024)


@pytest.fixture(scope="module")
def mobilenet():
    return table(spos_mobilenet_setting(), 1728)


@pytest.mark.parametrize(
    ("code", "flops", "params"),
    [
        pytest.param("7373x55335353x57735x", 327_544_320, 3_353_592, id="SPOS"),
        pytest.param("5333x3x777xx375x7775", 337_212_608, 3_348_600, id="DetNAS"),
        pytest.param("37353337x3353577x373", 299_135_296, 3_330_600, id="DSNAS"),
        pytest.param("3" * 20, 306_185_024, 3_155_368, id="all 3x3"),
        pytest.param("5" * 20, 323_997_504, 3_212_456, id="all 5x5"),
        pytest.param("7" * 20, 350_716_224, 3_298_088, id="all 7x7"),
        pytest.param("x" * 20, 373_913_216, 3_871_304, id="all xception"),
    ],
)
def test_subnets_of_the_shufflenet_space_have_the_published_figures(shufflenet, code, flops, params):
    architecture = dict(zip(shufflenet.space.names, (KERNELS[digit] for digit in code), strict=True))
    costs = shufflenet(architecture)
    assert (costs.macs, costs.params) == (flops, params)


@pytest.mark.parametrize(
    ("choice", "flops", "params"),
    [
        ("mb_k3e3", 483_453_664, 5_151_552),
        ("mb_k5e3", 520_107_232, 5_264_832),
        ("mb_k7e3", 575_087_584, 5_434_752),
        ("mb_k3e6", 892_871_008, 7_816_008),
        ("mb_k5e6", 966_178_144, 8_042_568),
        ("mb_k7e6", 1_076_138_848, 8_382_408),
        ("identity", 87_690_464, 2_650_120),
    ],
)
def test_uniform_subnets_of_the_mobilenet_space_have_the_measured_figures(mobilenet, choice, flops, params):
    space = mobilenet.space
    costs = mobilenet({d.name: choice if choice in d.choices else d.default for d in space})
    assert (costs.macs, costs.params) == (flops, params)


@pytest.mark.parametrize(
    ("width", "features", "flops", "macs"),
    [(1.0, 1280, 320_299_008, 300_774_272), (1.5, 1920, 702_903_808, 672_832_704)],
)
def test_mobilenet_v2_has_the_published_figures_in_both_conventions(width, features, flops, macs):
    model = classifier(mobilenet_v2_setting(width), features)
    assert count(model, image(), convention="mmr").macs == flops
    assert count(model, image()).macs == macs


@pytest.mark.parametrize(
    ("channels", "block", "size", "params", "flops"),
    [
        (64, ShuffleBlock(64, 64, 3), 28, 2528, 2_032_128),
        (16, ShuffleBlock(16, 64, 3, stride=2), 56, 2768, 3_675_392),
        (64, ShuffleBlock(64, 64, 5), 28, 3040, 2_433_536),
        (16, ShuffleBlock(16, 64, 7, stride=2), 56, 4688, 5_180_672),
        (64, ShuffleXception(64, 64), 28, 4320, 3_462_144),
        (16, ShuffleXception(16, 64, stride=2), 56, 4384, 3_537_408),
        (32, MBBlock(32, 32, kernel_size=3, expand_ratio=1), 28, 1440, 1_154_048),
        (32, MBBlock(32, 56, kernel_size=3, expand_ratio=1, stride=2), 28, 2256, 448_448),
        (32, MBBlock(32, 32, kernel_size=3, expand_ratio=6), 28, 14848, 11_941_888),
        (32, MBBlock(32, 56, kernel_size=5, expand_ratio=3, stride=2), 28, 11344, 4_236_736),
        (32, MBBlock(32, 32, kernel_size=3, expand_ratio=4, se_cfg={"ratio": 4}), 28, 18272, 8_086_720),
        (32, MBBlock(32, 56, kernel_size=3, expand_ratio=4, stride=2, se_cfg={"ratio": 4}), 28, 21392, 5_273_728),
        (32, Identity(32, 32), 28, 0, 0),
        (32, Identity(32, 56, stride=2), 28, 1904, 373_184),
    ],
)
def test_blocks_have_the_measured_figures(channels, block, size, params, flops):
    costs = count(block, torch.zeros(1, channels, size, size), convention="mmr")
    assert (costs.params, costs.macs) == (params, flops)


@pytest.mark.parametrize(
    ("module", "shape", "extra"),
    [
        (nn.Conv2d(3, 32, 3), (1, 3, 224, 224), 32 * 222 * 222),
        (nn.Conv2d(3, 32, 3, bias=False), (1, 3, 224, 224), 0),
        (nn.Linear(10, 5), (2, 10), 0),
        (nn.BatchNorm2d(4), (2, 4, 3, 3), 2 * 72),
        (nn.BatchNorm2d(4, affine=False), (2, 4, 3, 3), 72),
        (nn.LayerNorm(5), (2, 5), 10),
        (nn.GroupNorm(2, 4), (2, 4, 3, 3), 2 * 72),
        (nn.ReLU6(), (2, 5), 10),
        (nn.GELU(), (2, 5), 0),
        (nn.MaxPool2d(2), (1, 4, 6, 6), 144),
        (nn.AdaptiveAvgPool2d(1), (1, 4, 6, 6), 144),
    ],
)
def test_mmr_adds_biases_norms_activations_and_pools_to_the_macs(module, shape, extra):
    x = torch.zeros(shape)
    assert count(module, x, convention="mmr").macs - count(module, x).macs == extra
