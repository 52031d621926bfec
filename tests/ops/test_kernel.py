import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables import DerivedMutable, MutableValue, OneShotMutableValue, SequentialMutableChannel
from mutorch.ops import (
    BigNasConv2d,
    CenterCrop,
    DynamicConv1d,
    DynamicConv2d,
    DynamicConv3d,
    DynamicConvTranspose2d,
    LearnedTransform,
    OFAConv2d,
    UnsupportedAttrError,
    set_execution_,
)

X = torch.randn(2, 6, 9, 9, generator=torch.Generator().manual_seed(0))


def conv_of(kind, groups=1, sizes=(3, 5, 7), **kwargs):
    torch.manual_seed(0)
    conv = kind(6, 8 if groups == 1 else 6, sizes[-1], padding=sizes[-1] // 2, groups=groups, **kwargs)
    value = OneShotMutableValue(list(sizes))
    conv.register_mutable_attr("kernel_size", value)
    return conv, value


@pytest.mark.parametrize("kind", [BigNasConv2d, OFAConv2d])
@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_smaller_kernel_is_the_middle(kind, groups, size):
    conv, value = conv_of(kind, groups)  # the matrices are identities
    value.current_choice = size
    edge = (7 - size) // 2
    middle = conv.state_dict()["weight"][:, :, edge : 7 - edge, edge : 7 - edge]
    assert torch.equal(conv.weight, middle)
    assert (conv.kernel_size, conv.padding) == ((size, size), (size // 2, size // 2))
    expected = F.conv2d(X, middle, conv.state_dict()["bias"], padding=size // 2, groups=groups)
    assert torch.allclose(conv(X), expected, atol=1e-6)


def test_gradients_stay_inside_the_middle():
    conv, value = conv_of(BigNasConv2d)
    value.current_choice = 3
    conv(X).sum().backward()
    grad = dict(conv.named_parameters())["weight"].grad
    assert grad[:, :, 2:5, 2:5].abs().sum() > 0
    grad[:, :, 2:5, 2:5] = 0
    assert not grad.any()


def test_learned_matrices_are_applied_one_size_down_at_a_time():
    conv, value = conv_of(OFAConv2d)
    names = ["trans_matrix_5to3", "trans_matrix_7to5"]
    assert sorted(set(conv.state_dict()) - {"weight", "bias"}) == names
    matrices = {name: torch.randn(conv.state_dict()[name].shape) for name in names}
    assert [tuple(matrices[name].shape) for name in names] == [(9, 9), (25, 25)]
    conv.load_state_dict({**conv.state_dict(), **matrices})
    value.current_choice = 3
    five = conv.state_dict()["weight"][:, :, 1:6, 1:6].reshape(8, 6, 25) @ matrices[names[1]].T
    three = five.reshape(8, 6, 5, 5)[:, :, 1:4, 1:4].reshape(8, 6, 9) @ matrices[names[0]].T
    assert torch.allclose(conv.weight, three.reshape(8, 6, 3, 3), atol=1e-5)
    conv(X).sum().backward()
    assert all(dict(conv.named_parameters())[name].grad.abs().sum() > 0 for name in names)


@pytest.mark.parametrize("kind", [BigNasConv2d, OFAConv2d])
@pytest.mark.parametrize("groups", [1, 6])
def test_the_static_op_of_a_smaller_kernel_and_fewer_channels(kind, groups):
    conv, value = conv_of(kind, groups)
    inputs, outputs = SequentialMutableChannel(6), SequentialMutableChannel(conv.out_channels)
    conv.register_mutable_attr("in_channels", inputs)
    conv.register_mutable_attr("out_channels", outputs)
    value.current_choice, inputs.current_choice, outputs.current_choice = 5, 4, 4
    with pytest.raises(RuntimeError, match="is still open"):
        conv.to_static_op()
    value.fix_chosen(5)
    for mutable in (inputs, outputs):
        mutable.fix_chosen()
    plain = conv.to_static_op()
    assert type(plain) is nn.Conv2d
    assert set(plain.state_dict()) == {"weight", "bias"}
    assert torch.equal(plain(X[:, :4]), conv(X[:, :4]))
    assert repr(plain).startswith("Conv2d(4, 4, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2)")


@pytest.mark.parametrize("kind", [BigNasConv2d, OFAConv2d])
@pytest.mark.parametrize("groups", [1, 6])
def test_mask_mode_computes_the_same_numbers(kind, groups):
    conv, value = conv_of(kind, groups)
    for size in (3, 5, 7):
        value.current_choice = size
        set_execution_(conv, "slice")
        expected = conv(X)
        set_execution_(conv, "mask")
        assert conv.weight.shape[-1] == 7
        assert torch.allclose(conv(X), expected, atol=1e-5)


def test_a_derived_value_and_a_copy_decide_kernels():
    half = MutableValue([1, 2])
    size = DerivedMutable(choice_fn=lambda: 2 * half.current_choice + 1)
    conv = DynamicConv2d(3, 4, 5, padding=2, kernel=LearnedTransform())
    conv.register_mutable_attr("kernel_size", size)
    assert conv.kernel_size_list == [3, 5]
    half.current_choice = 1
    copied = copy.deepcopy(conv)
    half.current_choice = 2
    assert (conv.weight.shape[-1], copied.weight.shape[-1]) == (5, 3)
    with torch.no_grad():
        copied.trans_matrix_5to3.zero_()
    assert not copied.weight.any()  # its own matrix


def test_one_and_three_dimensions():
    for kind, shape in ((DynamicConv1d, (1, 2, 9)), (DynamicConv3d, (1, 2, 5, 5, 5))):
        for rule in (CenterCrop(), LearnedTransform()):
            conv, value = kind(2, 3, 5, padding=2, kernel=rule), OneShotMutableValue([1, 3, 5])
            conv.register_mutable_attr("kernel_size", value)
            value.current_choice = 1
            assert conv(torch.zeros(shape)).shape == (1, 3, *shape[2:])


def test_a_convolution_that_does_not_pad_pads_once_a_kernel_size_is_registered():
    conv, value = BigNasConv2d(6, 6, 5), MutableValue([3, 5])
    assert conv(X).shape == (2, 6, 5, 5)
    conv.register_mutable_attr("kernel_size", value)
    assert conv.padding == (1, 1)
    assert conv(X).shape == X.shape


def test_kernel_sizes_that_cannot_be_are_refused():
    for sizes, message in (([3, 5], "largest"), ([4, 7], "odd"), ([7, 9], "largest")):
        conv = BigNasConv2d(3, 3, 7)
        with pytest.raises(ChoiceError, match=message):
            conv.register_mutable_attr("kernel_size", MutableValue(sizes))
    with pytest.raises(ValueError, match="mutable with choices"):
        BigNasConv2d(3, 3, 7).register_mutable_attr("kernel_size", type("Value", (), {"current_choice": 3})())
    with pytest.raises(UnsupportedAttrError, match=r"make it with kernel=CenterCrop"):
        DynamicConv2d(3, 3, 7).register_mutable_attr("kernel_size", MutableValue([3, 7]))
    with pytest.raises(AssertionError):
        DynamicConvTranspose2d(3, 3, 7, kernel=CenterCrop()).register_mutable_attr("kernel_size", MutableValue([3, 7]))
    with pytest.raises(AssertionError, match="padding_mode 'zeros'"):
        BigNasConv2d(3, 3, 7, padding_mode="reflect").register_mutable_attr("kernel_size", MutableValue([3, 7]))
