"""The published networks, rebuilt from their encodings, show the published sizes to the last digit."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutorch.errors import ChoiceError
from mutorch.models import (
    ImageClassifier,
    mobilenet_v2_setting,
    shufflenet_v2_setting,
    spos_mobilenet_setting,
    spos_shufflenet_setting,
)
from mutorch.mutators import Mutator
from mutorch.registry import MODELS

IMAGE = (1, 3, 224, 224)

SHUFFLE_CODES = {"3": "shuffle_3x3", "5": "shuffle_5x5", "7": "shuffle_7x7", "x": "shuffle_xception"}
SPOS = "7373x55335353x57735x"
DETNAS = "5333x3x777xx375x7775"
DSNAS = "37353337x3353577x373"


def classifier(setting, in_channels):
    with torch.device("meta"):
        return ImageClassifier(setting, {"type": "LinearClsHead", "num_classes": 1000, "in_channels": in_channels})


def spos_subnet(code):
    model = classifier(spos_shufflenet_setting(), 1024)
    mutator = Mutator(model)
    mutator.fix_choices(dict(zip(mutator.space.names, (SHUFFLE_CODES[c] for c in code), strict=True)))
    return model


def mobilenet_subnet(choice):
    model = classifier(spos_mobilenet_setting(), 1728)
    mutator = Mutator(model)
    mutator.fix_choices({d.name: choice if choice in d.choices else "mb_k3e1" for d in mutator.space})
    return model


@pytest.mark.parametrize(
    ("name", "width", "features"),
    [
        ("ShuffleNetV2 x0.5", 0.5, 1024),
        ("ShuffleNetV2 x1", 1.0, 1024),
        ("ShuffleNetV2 x1.5", 1.5, 1024),
        ("ShuffleNetV2 x2", 2.0, 2048),
    ],
)
def test_shufflenet_v2_has_the_published_size(name, width, features, structure, count_macs, count_parameters):
    model = classifier(shufflenet_v2_setting(width), features)
    assert (count_parameters(model), count_macs(model, *IMAGE)) == structure(name)


@pytest.mark.parametrize(
    ("name", "width", "features"),
    [
        ("MobileNetV2 x0.35", 0.35, 1280),
        ("MobileNetV2 x0.75", 0.75, 1280),
        ("MobileNetV2 x1.0", 1.0, 1280),
        ("MobileNetV2 x1.4", 1.4, 1792),
    ],
)
def test_mobilenet_v2_has_the_published_size_without_norms(
    name, width, features, structure, count_macs, count_parameters
):
    model = classifier(mobilenet_v2_setting(width), features)
    norms = sum(count_parameters(module) for module in model.modules() if isinstance(module, _BatchNorm))
    assert (count_parameters(model) - norms, count_macs(model, *IMAGE)) == structure(name)


@pytest.mark.parametrize(
    ("width", "features", "parameters", "macs"), [(1.0, 1280, 3504872, 300774272), (1.5, 1920, 6858152, 672832704)]
)
def test_mobilenet_v2_has_the_published_size_with_norms(
    width, features, parameters, macs, count_macs, count_parameters
):
    model = classifier(mobilenet_v2_setting(width), features)
    assert (count_parameters(model), count_macs(model, *IMAGE)) == (parameters, macs)


@pytest.mark.parametrize(
    ("name", "code", "macs"),
    [
        ("SPOS ShuffleNetV2 (MMRazor)", SPOS, 316019520),
        ("DetNAS backbone (MMRazor)", DETNAS, 324919488),
        ("DSNAS (MMRazor)", DSNAS, 287883328),
    ],
)
def test_published_subnets_of_the_shufflenet_space_have_their_size(
    name, code, macs, structure, count_macs, count_parameters
):
    model = spos_subnet(code)
    # The MACs of the file are counted with norms and activations; see mutorch.cost for that convention.
    assert count_parameters(model) == structure(name)[0]
    assert count_macs(model, *IMAGE) == macs


@pytest.mark.parametrize(("code", "parameters"), [("3", 3155368), ("5", 3212456), ("7", 3298088), ("x", 3871304)])
def test_uniform_subnets_of_the_shufflenet_space_have_their_size(code, parameters, count_parameters):
    assert count_parameters(spos_subnet(code * 20)) == parameters


def test_shufflenet_supernet_has_its_size_and_its_decisions(count_parameters):
    model = classifier(spos_shufflenet_setting(), 1024)
    names = Mutator(model).space.names
    assert count_parameters(model) == 8488600
    assert names == tuple(
        f"backbone.layers.{stage}.{block}" for stage, blocks in enumerate((4, 4, 8, 4)) for block in range(blocks)
    )


@pytest.mark.parametrize(
    ("choice", "parameters"),
    [
        ("mb_k3e3", 5151552),
        ("mb_k5e3", 5264832),
        ("mb_k7e3", 5434752),
        ("mb_k3e6", 7816008),
        ("mb_k5e6", 8042568),
        ("mb_k7e6", 8382408),
        ("identity", 2650120),
    ],
)
def test_uniform_subnets_of_the_mobilenet_space_have_their_size(choice, parameters, count_parameters):
    assert count_parameters(mobilenet_subnet(choice)) == parameters


def test_mobilenet_space_has_21_searchable_blocks():
    space = Mutator(MODELS.build(spos_mobilenet_setting())).space
    assert [len(decision.choices) for decision in space] == [1] + [7] * 21
    assert space.names[:3] == ("layer1.0", "layer2.0", "layer2.1")


@pytest.mark.parametrize(
    "setting", [spos_shufflenet_setting, shufflenet_v2_setting, spos_mobilenet_setting, mobilenet_v2_setting]
)
def test_building_leaves_a_setting_as_it_was(setting):
    config = setting()
    before = copy.deepcopy(config)
    with torch.device("meta"):
        assert isinstance(MODELS.build(config), nn.Module)
    assert config == before


def test_unpublished_width_is_refused():
    with pytest.raises(ChoiceError, match="width 0.75; .*allowed: 0.5, 1.0, 1.5, 2.0"):
        shufflenet_v2_setting(0.75)
