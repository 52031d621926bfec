"""Costs of models whose sizes are declared with dynamic ops."""

import pytest
import torch
from torch import nn

from mutorch import CostTable, Mutator, count, export, searchable
from mutorch.mutables import MutableChannelContainer, OneShotMutableChannel, OneShotMutableOP, OneShotMutableValue
from mutorch.mutators import ChannelMutator
from mutorch.ops import (
    BigNasConv2d,
    DynamicConv2d,
    DynamicInputResizer,
    DynamicLinear,
    DynamicMultiheadAttention,
    DynamicSequential,
    OFAConv2d,
)

X = torch.zeros(2, 3, 10, 10)


def value(choices, alias):
    return OneShotMutableValue(choices, alias=alias)


def kernels(kind, groups=1):
    conv = kind(8, 8, 5, padding=2, groups=groups)
    conv.register_mutable_attr("kernel_size", value([3, 5], "kernel"))
    return nn.Sequential(nn.Conv2d(3, 8, 1), conv), X


def channels():
    width, other = OneShotMutableChannel(8, [4, 8], alias="width"), OneShotMutableChannel(4, [1, 4])

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.depthwise = (
                DynamicConv2d(3, 8, 3),
                DynamicConv2d(3, 4, 3),
                DynamicConv2d(8, 8, 1, groups=8),
            )
            self.head = DynamicLinear(12, 5)
            joined, alone = MutableChannelContainer(12), MutableChannelContainer(4)
            joined.register_mutable(width, 0, 8)
            joined.register_mutable(other, 8, 12)
            alone.register_mutable(other, 0, 4)
            self.a.register_mutable_attr("out_channels", width)
            self.b.register_mutable_attr("out_channels", alone)
            self.head.register_mutable_attr("in_features", joined)
            for attr in ("in_channels", "out_channels"):
                self.depthwise.register_mutable_attr(attr, width)
            self.choice = OneShotMutableOP({"conv": kernels(OFAConv2d)[0][1], "skip": nn.Identity()})

        def forward(self, x):
            found = torch.cat([self.depthwise(self.a(x)), self.b(x)], 1).mean((2, 3))
            return self.head(found)

    return Joined(), X


def depth():
    blocks = DynamicSequential(nn.Conv2d(3, 3, 1), *kernels(OFAConv2d)[0], nn.ReLU())
    blocks.register_mutable_attr("depth", value([1, 2, 4], "depth"))
    return nn.Sequential(nn.Conv2d(3, 3, 1), blocks), X


def shape():
    resize = DynamicInputResizer()
    resize.register_mutable_attr("shape", value([[6, 6], [10, 10]], "shape"))
    return nn.Sequential(resize, nn.Conv2d(3, 4, 3)), X


def attention():
    heads, width = value([1, 2], "heads"), OneShotMutableChannel(12, [6, 12], alias="width")
    first, layer = DynamicLinear(10, 12), DynamicMultiheadAttention(12, 2)
    first.register_mutable_attr("out_features", width)
    layer.register_mutable_attr("embed_dims", width)
    layer.register_mutable_attr("num_heads", heads)
    layer.register_mutable_attr("q_embed_dims", OneShotMutableChannel(64, alias="head") * heads)
    return nn.Sequential(first, layer), torch.zeros(2, 5, 10)


def observed(kind):
    model, inputs = kernels(kind)
    return searchable(model.append(nn.ReLU()).append(nn.Conv2d(8, 4, 1)), inputs), inputs


def converted():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    ChannelMutator(parse_cfg={"type": "ChannelAnalyzer", "demo_input": (2, 3, 10, 10)}).prepare_from_supernet(model)
    return model, X


@pytest.mark.parametrize(
    "build",
    [
        lambda: kernels(BigNasConv2d),
        lambda: kernels(OFAConv2d),
        lambda: kernels(OFAConv2d, groups=2),
        channels,
        depth,
        shape,
        attention,
        lambda: observed(BigNasConv2d),
        lambda: observed(OFAConv2d),
        converted,
    ],
)
def test_tables_of_declared_models_are_what_counting_their_exports_gives(build):
    model, inputs = build()
    mutator = Mutator(model.eval())
    before = mutator.current_choices
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    classes = [type(module) for module in model.modules()]
    table = CostTable.from_model(mutator, inputs)
    assert mutator.current_choices == before
    assert [type(module) for module in model.modules()] == classes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for architecture in [mutator.space.min, mutator.space.max, *(mutator.space.sample(seed) for seed in range(5))]:
        counted, said = count(export(model, architecture), inputs), table(architecture)
        assert (said.macs, said.params, said.size_mb) == (counted.macs, counted.params, counted.size_mb)
        assert said.act_mem_mb == counted.act_mem_mb
