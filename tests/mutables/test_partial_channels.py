import pytest
import torch
from torch import nn

from mutorch.cost import CostTable, count
from mutorch.errors import ChoiceError
from mutorch.mutables import DiffMutableOP, OneHotMutableOP, PartialChannels, partial_channels
from mutorch.mutators import Mutator
from mutorch.space import random_at
from mutorch.subnet import export, load, save

X = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))


def build(kind=DiffMutableOP):
    torch.manual_seed(0)

    def conv(size):
        return nn.Sequential(nn.Conv2d(2, 2, size, padding=size // 2, bias=False), nn.BatchNorm2d(2))

    def block():
        return kind({"skip": nn.Identity(), "conv3": conv(3), "conv1": conv(1)}, partial=4)

    return nn.Sequential(block(), block(), block()).eval()


def test_the_first_part_is_computed_and_all_are_shuffled():
    x = torch.arange(8.0).reshape(1, 8)
    assert partial_channels(lambda part: -part - 10, x, 4).tolist() == [[-10, 2, 4, 6, -11, 3, 5, 7]]


def test_what_passes_is_pooled_where_the_rest_is_halved():
    halved = PartialChannels(nn.AvgPool2d(2), 4)(X)
    assert halved.shape == (2, 8, 2, 2)
    torch.testing.assert_close(halved[:, 1], nn.functional.max_pool2d(X, 2)[:, 2])


@pytest.mark.parametrize("kind", [DiffMutableOP, OneHotMutableOP])
def test_export_equals_the_supernet_for_random_architectures(kind):
    net = build(kind)
    mutator = Mutator(net)
    for number in range(8):
        architecture = mutator.space.sample(random_at(0, number))
        with mutator.at(architecture):
            expected = net(X)
        assert torch.equal(export(net, architecture)(X), expected)


def test_a_table_prices_what_is_exported():
    net = build()
    table = CostTable.from_model(Mutator(net), X[:1])
    for architecture in table.space.grid():
        exported = count(export(net, architecture), X[:1])
        assert (table(architecture).macs, table(architecture).params) == (exported.macs, exported.params)


def test_an_exported_model_is_saved_and_loaded(tmp_path):
    net = build()
    exported = export(net, {"0": "conv3", "1": "skip", "2": "conv1"})
    save(exported, tmp_path / "partial.safetensors")
    assert torch.equal(load(tmp_path / "partial.safetensors", build).eval()(X), exported(X))


def test_a_mixture_computes_a_part_and_learns():
    net = build().train()
    mutator = Mutator(net)
    mutator.prepare_arch_params()
    net(X).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mutator.arch_parameters())


def test_a_fixed_block_computes_a_part_too():
    net = build()
    with Mutator(net).at({"0": "conv3", "1": "skip", "2": "conv1"}):
        expected = net(X)
    for block, choice in zip(net, ("conv3", "skip", "conv1"), strict=True):
        block.fix_chosen(choice)
    assert torch.equal(net(X), expected)


def test_channels_that_cannot_be_divided_and_no_parts_are_refused():
    with pytest.raises(ChoiceError, match="8 channels have no 3 equal parts"):
        partial_channels(nn.Identity(), X, 3)
    with pytest.raises(ChoiceError, match="partial must be at least 1, got 0"):
        DiffMutableOP({"a": nn.Identity()}, partial=0)
