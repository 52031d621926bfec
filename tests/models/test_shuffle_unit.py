import pytest
import torch
from torch import nn

from mutorch.errors import ChoiceError
from mutorch.models import ShuffleBlock, ShuffleXception

X = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kernel_size", "kept", "strided"), [(3, 2528, 2768), (5, 3040, 3536), (7, 3808, 4688)])
def test_shuffle_block_has_the_known_size(kernel_size, kept, strided, count_parameters):
    assert count_parameters(ShuffleBlock(64, 64, kernel_size)) == kept
    assert count_parameters(ShuffleBlock(16, 64, kernel_size, stride=2)) == strided


def test_shuffle_xception_has_the_known_size(count_parameters):
    assert count_parameters(ShuffleXception(64, 64)) == 4320
    assert count_parameters(ShuffleXception(16, 64, stride=2)) == 4384


@pytest.mark.parametrize("make", [lambda *a: ShuffleXception(*a), lambda i, o, s: ShuffleBlock(i, o, 7, s)])
def test_stride_halves_the_size_and_changes_the_channels(make):
    assert make(16, 16, 1)(X).shape == (2, 16, 8, 8)
    assert make(16, 24, 2)(X).shape == (2, 24, 4, 4)


def test_half_of_the_channels_pass_and_are_interleaved_with_the_others():
    block = ShuffleBlock(16, 16, 3).eval()
    out = block(X)
    assert torch.equal(out[:, 0::2], X[:, :8])
    assert torch.equal(out[:, 1::2], block.branch2(X[:, 8:]))


def test_names_in_the_state_dict_are_readable():
    block, xception = ShuffleBlock(16, 16, 3), ShuffleXception(16, 16)
    assert {"branch2.0.conv.weight", "branch2.1.bn.weight"} <= block.state_dict().keys()
    assert "branch2.2.pointwise_conv.conv.weight" in xception.state_dict()


def test_depthwise_convolutions_have_no_activation():
    block = ShuffleBlock(16, 32, 3, stride=2)
    assert [hasattr(layer, "activate") for layer in (*block.branch1, *block.branch2)] == [
        False,
        True,
        True,
        False,
        True,
    ]


def test_norm_and_activation_are_those_of_the_config():
    norm_cfg, act_cfg = {"type": "BN", "affine": False}, {"type": "HSwish"}
    block = ShuffleBlock(16, 32, 3, stride=2, norm_cfg=norm_cfg, act_cfg=act_cfg)
    kinds = {type(module) for module in block.modules()}
    assert nn.Hardswish in kinds
    assert nn.ReLU not in kinds
    assert not any(module.affine for module in block.modules() if isinstance(module, nn.BatchNorm2d))
    assert (norm_cfg, act_cfg) == ({"type": "BN", "affine": False}, {"type": "HSwish"})


def test_other_kernel_sizes_are_refused():
    with pytest.raises(ChoiceError, match="ShuffleBlock has no kernel_size 9; allowed: 3, 5, 7") as error:
        ShuffleBlock(16, 16, 9)
    assert isinstance(error.value, AssertionError)


@pytest.mark.parametrize(("in_channels", "out_channels"), [(16, 32), (15, 16)])
def test_stride_1_with_other_channels_is_refused(in_channels, out_channels):
    with pytest.raises(ChoiceError, match=f"in_channels must be {out_channels} as out_channels, got {in_channels}"):
        ShuffleXception(in_channels, out_channels)


def test_odd_channels_are_refused():
    with pytest.raises(ChoiceError, match="out_channels must be even, got 33"):
        ShuffleBlock(16, 33, 3, stride=2)
