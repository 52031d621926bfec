import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables import MutableChannelContainer, OneShotMutableChannel, SequentialMutableChannel
from mutorch.ops import (
    DynamicConv1d,
    DynamicConv2d,
    DynamicConv3d,
    DynamicConvTranspose1d,
    DynamicConvTranspose2d,
    DynamicConvTranspose3d,
    set_execution_,
)
from mutorch.testing import OpSuite

BOTH = ("in_channels", "out_channels")


class TestDynamicConv1d(OpSuite):
    dynamic, attrs = DynamicConv1d, BOTH

    def static(self):
        return nn.Conv1d(6, 8, 3, stride=2, padding=1)

    def inputs(self, active):
        return torch.randn(2, len(active["in_channels"]), 9)

    def reference(self, static, active, x):
        weight = static.weight[active["out_channels"]][:, active["in_channels"]]
        return F.conv1d(x, weight, static.bias[active["out_channels"]], stride=2, padding=1)


class TestDynamicConv2d(OpSuite):
    dynamic, attrs, tolerance = DynamicConv2d, BOTH, 1e-5

    def static(self):
        return nn.Conv2d(6, 8, (3, 5), dilation=2, padding="same")

    def inputs(self, active):
        return torch.randn(2, len(active["in_channels"]), 9, 7)

    def reference(self, static, active, x):
        weight = static.weight[active["out_channels"]][:, active["in_channels"]]
        return F.conv2d(x, weight, static.bias[active["out_channels"]], dilation=2, padding="same")


class TestReflectingConv2d(TestDynamicConv2d):
    def static(self):
        return nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect", bias=False)

    def reference(self, static, active, x):
        weight = static.weight[active["out_channels"]][:, active["in_channels"]]
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight)


class TestDepthwiseConv2d(OpSuite):
    dynamic, attrs = DynamicConv2d, BOTH

    def static(self):
        return nn.Conv2d(8, 8, 3, groups=8)

    def inputs(self, active):
        return torch.randn(2, len(active["in_channels"]), 5, 5)

    def reference(self, static, active, x):
        kept = active["out_channels"]
        return F.conv2d(x, static.weight[kept], static.bias[kept], groups=len(kept))


class TestGroupedConv2d(OpSuite):
    dynamic, attrs = DynamicConv2d, BOTH

    def static(self):
        return nn.Conv2d(6, 9, 3, groups=3)

    def selections(self, sizes):
        yield {"in_channels": [0, 2, 4], "out_channels": [0, 1, 3, 4, 6, 7]}  # the same places of every group
        yield {"in_channels": [0, 3, 4], "out_channels": [0, 2, 3, 4, 7, 8]}  # other places
        yield {"in_channels": [0, 1, 2, 3], "out_channels": [0, 1, 3, 5]}  # one group less

    def inputs(self, active):
        return torch.randn(2, len(active["in_channels"]), 5, 5)

    def reference(self, static, active, x):
        outputs, taken = [], 0
        for group in range(3):
            columns = active["in_channels"][active["in_channels"] // 2 == group] % 2
            rows = active["out_channels"][active["out_channels"] // 3 == group]
            part = x[:, taken : taken + len(columns)]
            taken += len(columns)
            if len(columns):
                outputs.append(F.conv2d(part, static.weight[rows][:, columns], static.bias[rows]))
        return torch.cat(outputs, dim=1)


class TestDynamicConv3d(OpSuite):
    dynamic, attrs, tolerance = DynamicConv3d, BOTH, 1e-5

    def static(self):
        return nn.Conv3d(4, 6, 3)

    def inputs(self, active):
        return torch.randn(2, len(active["in_channels"]), 4, 5, 3)

    def reference(self, static, active, x):
        return F.conv3d(
            x, static.weight[active["out_channels"]][:, active["in_channels"]], static.bias[active["out_channels"]]
        )


class TestDynamicConvTranspose1d(OpSuite):
    dynamic, attrs = DynamicConvTranspose1d, BOTH

    def static(self):
        return nn.ConvTranspose1d(6, 8, 3, stride=2)

    def inputs(self, active):
        return torch.randn(2, len(active["in_channels"]), 4)

    def reference(self, static, active, x):
        weight = static.weight[active["in_channels"]][:, active["out_channels"]]
        return F.conv_transpose1d(x, weight, static.bias[active["out_channels"]], stride=2)


class TestDynamicConvTranspose2d(OpSuite):
    dynamic, attrs, tolerance = DynamicConvTranspose2d, BOTH, 1e-5

    def static(self):
        return nn.ConvTranspose2d(4, 8, 3, stride=2, groups=2)

    def selections(self, sizes):
        yield {"in_channels": [0, 3], "out_channels": [0, 2, 5, 7]}
        yield {"in_channels": [0, 1], "out_channels": [0, 1, 2]}

    def inputs(self, active):
        return torch.randn(2, len(active["in_channels"]), 4, 4)

    def reference(self, static, active, x):
        outputs, taken = [], 0
        for group in range(2):
            rows = active["in_channels"][active["in_channels"] // 2 == group]
            columns = active["out_channels"][active["out_channels"] // 4 == group]
            part = x[:, taken : taken + len(rows)]
            taken += len(rows)
            if len(rows):
                weight = static.weight[rows][:, columns % 4]
                outputs.append(F.conv_transpose2d(part, weight, static.bias[columns], stride=2))
        return torch.cat(outputs, dim=1)


class TestDynamicConvTranspose3d(OpSuite):
    dynamic, attrs, tolerance = DynamicConvTranspose3d, BOTH, 1e-5

    def static(self):
        return nn.ConvTranspose3d(4, 4, 2)

    def inputs(self, active):
        return torch.randn(1, len(active["in_channels"]), 2, 2, 2)

    def reference(self, static, active, x):
        weight = static.weight[active["in_channels"]][:, active["out_channels"]]
        return F.conv_transpose3d(x, weight, static.bias[active["out_channels"]])


def test_one_mutable_on_both_sides_keeps_a_depthwise_convolution_depthwise():
    conv, width = DynamicConv2d(8, 8, 3, groups=8), SequentialMutableChannel(8)
    for attr in BOTH:
        conv.register_mutable_attr(attr, width)
    width.current_choice = 3
    assert (conv.groups, conv.in_channels, conv.out_channels, tuple(conv.weight.shape)) == (3, 3, 3, (3, 1, 3, 3))
    assert conv(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 2, 2)


def test_groups_that_would_keep_different_numbers_are_an_error():
    conv, width = DynamicConv2d(6, 9, 3, groups=3), SequentialMutableChannel(9)
    conv.register_mutable_attr("out_channels", width)
    width.current_choice = 4
    with pytest.raises(ChoiceError, match=r"equally many channels in each group that it keeps, got \[3, 1, 0\]"):
        conv(torch.zeros(1, 6, 4, 4))


def test_registering_again_replaces_the_mutable():
    conv, first, second = DynamicConv2d(3, 8, 1), SequentialMutableChannel(8), SequentialMutableChannel(8)
    conv.register_mutable_attr("out_channels", first)
    conv.register_mutable_attr("out_channels", second)
    first.current_choice, second.current_choice = 2, 5
    assert conv.out_channels == 5
    assert conv.mutable_out_channels is second
    assert conv.mutable_in_channels is None


def test_containers_and_derived_mutables_decide_too():
    conv, a, b = DynamicConv2d(8, 4, 1), OneShotMutableChannel(4, [2, 4]), OneShotMutableChannel(4, [1, 4])
    container = MutableChannelContainer(8)
    container.register_mutable(a, 0, 4)
    container.register_mutable(b, 4, 8)
    conv.register_mutable_attr("in_channels", container)
    conv.register_mutable_attr("out_channels", a.derive_same_mutable())
    a.current_choice, b.current_choice = 2, 1
    assert tuple(conv.weight.shape) == (2, 3, 1, 1)
    assert torch.equal(conv.weight, conv.state_dict()["weight"][:2][:, [0, 1, 4]])
    assert tuple(conv.to_static_op().weight.shape) == (2, 3, 1, 1)  # neither is asked to be fixed


def test_mask_mode_computes_the_same_numbers():
    for conv in (DynamicConv2d(6, 6, 3, groups=3), DynamicConv2d(6, 6, 3)):
        width = SequentialMutableChannel(6)
        for attr in BOTH:
            conv.register_mutable_attr(attr, width)
        width.current_choice = 4
        x = torch.randn(1, 6, 5, 5, generator=torch.Generator().manual_seed(0))
        sliced = conv(x[:, :4])
        set_execution_(conv, "mask")
        masked = conv(torch.cat([x[:, :4], torch.zeros(1, 2, 5, 5)], 1))
        assert torch.allclose(masked[:, :4], sliced, atol=1e-6)
        assert not masked[:, 4:].any()
        width.current_choice = 6
        assert masked[:, 4:].shape == conv(x)[:, 4:].shape
        assert conv(x)[:, 4:].any()


def test_a_convolution_may_be_pruned_by_torch_while_it_is_dynamic():
    from torch.nn.utils import prune

    conv, width = DynamicConv2d(3, 8, 1, bias=False), SequentialMutableChannel(8)
    conv.register_mutable_attr("out_channels", width)
    prune.l1_unstructured(conv, "weight", amount=0.5)
    width.current_choice = 4
    assert conv(torch.ones(1, 3, 1, 1)).shape == (1, 4, 1, 1)
