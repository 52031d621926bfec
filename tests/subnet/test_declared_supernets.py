import copy
import random

import pytest
import torch
from torch import nn

from mutorch import Mutator, export, load, save, searchable
from mutorch.mutables import (
    MutableChannelContainer,
    OneShotMutableChannel,
    OneShotMutableOP,
    OneShotMutableValue,
)
from mutorch.ops import (
    BigNasConv2d,
    DynamicBatchNorm2d,
    DynamicConv2d,
    DynamicInputResizer,
    DynamicLinear,
    DynamicMultiheadAttention,
    DynamicSequential,
    OFAConv2d,
)
from mutorch.subnet import convert_fix_subnet, export_fix_subnet, load_fix_subnet
from mutorch.testing import check_export

X = torch.randn(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self, width, kind):
        super().__init__()
        self.conv, self.norm = kind(8, 8, 5, padding=2), DynamicBatchNorm2d(8)
        self.conv.register_mutable_attr("kernel_size", OneShotMutableValue([3, 5]))
        for op in (self.conv, self.norm):
            for attr in ("in_channels", "out_channels"):
                if op.get_mutable_attr(attr) is None:
                    op.register_mutable_attr(attr, width)

    def forward(self, x):
        return x + self.norm(self.conv(x))


class Supernet(nn.Module):
    """Sizes of every kind: input, width, kernels, depth, a block of candidates, a container."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.width = OneShotMutableChannel(8, [4, 8], alias="width")
        other = OneShotMutableChannel(4, [2, 4])
        self.resize = DynamicInputResizer()
        self.resize.register_mutable_attr("shape", OneShotMutableValue([[6, 6], [10, 10]], alias="shape"))
        self.stem, self.side = DynamicConv2d(3, 8, 1), DynamicConv2d(3, 4, 1)
        self.stem.register_mutable_attr("out_channels", self.width)
        container = MutableChannelContainer(4)
        container.register_mutable(other, 0, 4)
        self.side.register_mutable_attr("out_channels", container)
        self.blocks = DynamicSequential(Block(self.width, BigNasConv2d), Block(self.width, OFAConv2d), nn.ReLU())
        self.blocks.register_mutable_attr("depth", OneShotMutableValue([1, 2, 3], alias="depth"))
        self.choice = OneShotMutableOP({"conv": Block(self.width, DynamicConv2dWithCrop), "skip": nn.Identity()})
        joined = MutableChannelContainer(12)
        joined.register_mutable(self.width, 0, 8)
        joined.register_mutable(other, 8, 12)
        self.head = DynamicLinear(12, 5)
        self.head.register_mutable_attr("in_features", joined)
        self.tied = DynamicLinear(12, 5)
        self.tied.weight = self.head._parameters["weight"]
        self.tied.register_mutable_attr("in_features", joined)

    def forward(self, x):
        x = self.resize(x)
        x = torch.cat([self.choice(self.blocks(self.stem(x))), self.side(x)], 1).mean((2, 3))
        return self.head(x) + self.tied(x)


class DynamicConv2dWithCrop(BigNasConv2d):
    """A class of the user's."""


NAMES = (
    "width",
    "shape",
    "side.mutable_attrs.out_channels",
    "blocks.0.conv.mutable_attrs.kernel_size",
    "blocks.1.conv.mutable_attrs.kernel_size",
    "depth",
    "choice",
    "choice._candidates.conv.conv.mutable_attrs.kernel_size",
)


def test_every_size_of_a_declared_model_is_a_decision():
    model = Supernet()
    space = Mutator(model).space
    assert set(space.names) == set(NAMES)
    assert space["choice._candidates.conv.conv.mutable_attrs.kernel_size"].when == (("choice", "conv"),)
    assert space["width"].choices == (4, 8)


def test_declared_models_are_exported_exactly():
    model = Supernet()
    model(X)  # running statistics
    mutator = Mutator(model)
    check_export(model, X, num_architectures=20)
    mutator.set_min_choices()
    subnet = export(model.eval())
    assert torch.equal(subnet(X), model(X))
    assert {type(module).__name__ for module in subnet.modules()} <= {
        *(
            "Supernet",
            "Block",
            "Conv2d",
            "BatchNorm2d",
            "Linear",
            "Sequential",
            "InputResizer",
            "Identity",
            "Module",
            "ReLU",
        )
    }
    assert subnet.tied.weight is subnet.head.weight
    assert len(subnet.blocks) == 1
    assert not any("trans_matrix" in name or "mutable" in name for name in subnet.state_dict())


def test_an_architecture_is_exported_that_is_not_the_current_one():
    model = Supernet().eval()
    mutator = Mutator(model)
    for seed in range(6):
        architecture = mutator.space.sample(random.Random(seed))
        before = mutator.current_choices
        subnet = export(model, architecture)
        assert mutator.current_choices == before
        with mutator.at(architecture):
            assert torch.equal(subnet(X), model(X))


def test_subnets_are_saved_and_loaded(tmp_path):
    model = Supernet().eval()
    mutator = Mutator(model)
    mutator.set_min_choices()
    subnet = export(model)
    path = save(subnet, tmp_path / "net.safetensors")
    assert torch.equal(load(path, Supernet).eval()(X), model(X))


def test_fixed_subnets_are_plain_in_place_and_stay_tied():
    model = Supernet().eval()
    mutator = Mutator(model)
    for seed in range(4):
        mutator.set_choices(mutator.space.sample(seed))
        subnet, static = export_fix_subnet(model, slice_weight=True)
        other = Supernet().eval()
        load_fix_subnet(other, convert_fix_subnet(subnet))
        assert torch.equal(other(X), model(X))
        assert torch.equal(static(X), model(X))
        assert other.tied.weight is other.head.weight
        assert type(other.stem) is nn.Conv2d


def test_copies_are_independent():
    model = Supernet().eval()
    copied = copy.deepcopy(model)
    Mutator(copied).set_min_choices()
    assert (copied.stem.out_channels, model.stem.out_channels) == (4, 8)
    assert (copied.head.in_features, model.head.in_features) == (6, 12)


def test_a_declared_kernel_and_observed_channels_go_together():
    conv = OFAConv2d(8, 16, 5, padding=2)
    size = OneShotMutableValue([3, 5], alias="kernel")
    conv.register_mutable_attr("kernel_size", size)
    plain = nn.Sequential(nn.Conv2d(3, 8, 1), conv, nn.ReLU(), nn.Conv2d(16, 4, 1)).eval()
    net = searchable(plain, X)
    mutator = Mutator(net)
    assert "kernel" in mutator.space.names
    assert len(mutator.space.names) == 3
    for seed in range(4):
        architecture = mutator.space.sample(seed)
        mutator.set_choices(architecture)
        subnet = export(net)
        assert torch.equal(subnet(X), net(X))
        assert {type(module) for module in subnet} == {nn.Conv2d, nn.ReLU}
        assert subnet[1].kernel_size == (architecture["kernel"],) * 2


def test_attention_with_heads_that_its_features_follow():
    heads = OneShotMutableValue([1, 2], alias="heads")
    width = OneShotMutableChannel(12, [6, 12], alias="width")
    first, attention, last = DynamicLinear(5, 12), DynamicMultiheadAttention(12, 2), DynamicLinear(12, 3)
    first.register_mutable_attr("out_features", width)
    last.register_mutable_attr("in_features", width)
    attention.register_mutable_attr("embed_dims", width)
    attention.register_mutable_attr("num_heads", heads)
    attention.register_mutable_attr("q_embed_dims", OneShotMutableChannel(64, alias="head") * heads)
    model = nn.Sequential(first, attention, last).eval()
    mutator = Mutator(model)
    assert set(mutator.space.names) == {"heads", "width", "head"}
    check_export(model, torch.randn(1, 5, 5), num_architectures=4)
    mutator.set_min_choices()
    assert export(model)[1].w_qs.weight.shape == (64, 6)


@pytest.mark.parametrize("root", [True, False])
def test_a_model_that_is_one_dynamic_op(root):
    conv, width = DynamicConv2d(3, 8, 1), OneShotMutableChannel(8, [4, 8], alias="width")
    conv.register_mutable_attr("out_channels", width)
    model = conv if root else nn.Sequential(conv)
    found = export(model, {"width": 4})
    assert type(found if root else found[0]) is nn.Conv2d
    assert torch.equal(found(X), conv(X)[:, :4])
