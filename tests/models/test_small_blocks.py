"""Identity, squeeze and excitation, stochastic depth, and the convolution helper."""

import copy

import pytest
import torch
from torch import nn

from mutorch.errors import ConfigError, RegistryError
from mutorch.models import DropPath, Identity, SELayer, conv_norm_act

X = torch.randn(2, 32, 8, 8, generator=torch.Generator().manual_seed(0))


def test_identity_is_its_input_where_the_shape_stays():
    assert Identity(32, 32)(X) is X


def test_identity_changes_the_shape_by_convolution_and_norm(count_parameters):
    block = Identity(32, 56, stride=2)
    assert block(X).shape == (2, 56, 4, 4)
    assert count_parameters(block) == 1904
    assert [name for name, _ in block.downsample.named_children()] == ["conv", "bn"]


def test_se_layer_weighs_whole_channels(count_parameters):
    layer = SELayer(32, ratio=4)
    weight = layer(X) / X
    assert torch.allclose(weight, weight[:, :, :1, :1].expand_as(weight), atol=1e-5)
    assert layer.conv1.conv.out_channels == 8
    assert count_parameters(layer) == 32 * 8 + 8 + 8 * 32 + 32


def test_se_layer_takes_two_activations():
    layer = SELayer(32, squeeze_channels=4, act_cfg=({"type": "ReLU"}, {"type": "HSigmoid"}))
    assert isinstance(layer.conv1.activate, nn.ReLU)
    assert isinstance(layer.conv2.activate, nn.Hardsigmoid)


def test_se_layer_refuses_three_activations():
    with pytest.raises(ConfigError, match="one activation or two, got 3"):
        SELayer(32, act_cfg=({"type": "ReLU"},) * 3)


def test_drop_path_keeps_the_mean():
    torch.manual_seed(0)
    assert DropPath(0.25)(torch.ones(4000, 1)).mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("norm_cfg", "act_cfg", "names"),
    [
        ({"type": "BN"}, {"type": "ReLU6"}, ["conv", "bn", "activate"]),
        ({"type": "GN", "num_groups": 4}, {"type": "Swish"}, ["conv", "norm", "activate"]),
        ({"type": "SyncBN"}, None, ["conv", "bn"]),
        (None, {"type": nn.GELU}, ["conv", "activate"]),
    ],
)
def test_layers_follow_the_configs_and_leave_them_as_they_were(norm_cfg, act_cfg, names):
    conv_cfg = {"type": "Conv2d", "padding_mode": "reflect"}
    before = copy.deepcopy((conv_cfg, norm_cfg, act_cfg))
    layers = conv_norm_act(8, 16, 5, 2, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
    assert [name for name, _ in layers.named_children()] == names
    assert layers.conv.padding_mode == "reflect"
    assert (layers.conv.bias is None) == (norm_cfg is not None)
    assert (conv_cfg, norm_cfg, act_cfg) == before


def test_norm_config_can_freeze_its_parameters():
    layers = conv_norm_act(8, 8, 1, norm_cfg={"type": "BN", "requires_grad": False})
    assert not layers.bn.weight.requires_grad
    assert layers.conv.weight.requires_grad


def test_unknown_layer_is_refused_with_the_nearest():
    with pytest.raises(RegistryError, match="has no 'ReLU7'; did you mean .*'ReLU6'"):
        conv_norm_act(8, 8, 1, act_cfg={"type": "ReLU7"})


def test_layer_without_type_is_refused():
    with pytest.raises(ConfigError, match=r"written dict\(type='BN'\).*got 'BN'"):
        conv_norm_act(8, 8, 1, norm_cfg="BN")
