import copy
import pickle

import pytest
import torch
from channels.published import BasicBlock, ResNet
from torch import nn

from mutorch import CostTable, Mutator, check, count, depth, export, load, save, searchable, widths
from mutorch.errors import SpaceError
from mutorch.mutables import OneShotMutableValue
from mutorch.ops import DynamicConv2d
from mutorch.ops.kernel import LearnedTransform

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def build():
    torch.manual_seed(0)
    return ResNet(BasicBlock, (2, 3, 1, 2)).eval()


class Encoder(nn.Module):
    """Blocks in a list, called with more than one argument."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True) for _ in range(3))
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        mask = torch.zeros(x.shape[1], x.shape[1])
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x, src_mask=mask)
        return self.head(x)


def test_a_row_of_residual_blocks_is_a_decision_and_its_first_block_that_changes_the_resolution_stays():
    space = Mutator(searchable(build(), X, rules=[depth("layer*")])).space
    assert {d.name: d.choices for d in space} == {
        "layer1.depth": (1, 2),
        "layer2.depth": (1, 2, 3),
        "layer4.depth": (1, 2),
    }


def test_depths_and_widths_together_compute_what_the_exported_model_computes():
    net = searchable(build(), X, rules=[widths(), depth()])
    assert check(net, n=8).exported == 0.0


def test_an_exported_model_does_not_have_the_blocks_that_are_left_out():
    net = searchable(build(), X, rules=[depth("layer2")])
    exported = export(net, {"layer2.depth": 1})
    assert len(exported.layer2) == 1
    assert {type(module).__module__ for module in exported.modules()} == {
        "channels.published",
        *(type(m).__module__ for m in build().modules()),
    }


def test_rows_are_found_beside_parameters_that_only_some_choices_reach():
    kernels = DynamicConv2d(64, 64, 3, padding=1, kernel=LearnedTransform())
    kernels.register_mutable_attr("kernel_size", OneShotMutableValue([1, 3], alias="kernel"))
    rows = nn.Sequential(nn.Conv2d(3, 64, 1), kernels, build().layer1)
    assert "2.depth" in Mutator(searchable(rows, X, rules=[depth()])).space.names


def test_blocks_with_further_arguments_may_be_left_out():
    net = searchable(Encoder().eval(), torch.randn(1, 5, 4), rules=[depth("layers")])
    assert len(export(net, {"layers.depth": 1}).layers) == 1
    assert check(net, n=3).exported == 0.0


def test_the_costs_of_a_depth_are_those_of_the_exported_model():
    net = searchable(build(), X, rules=[widths(ratios=(0.5, 1.0)), depth()])
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, X)
    architecture = mutator.space.sample(3)
    assert table(architecture) == count(export(net, architecture), X)


def test_a_saved_model_loads_into_the_original_class(tmp_path):
    net = searchable(build(), X, rules=[widths(), depth()])
    exported = export(net, Mutator(net).space.sample(1))
    loaded = load(save(exported, tmp_path / "net.safetensors"), build)
    assert torch.equal(loaded.eval()(X), exported(X))


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copied", "pickled"]
)
def test_a_net_that_was(again):
    net = searchable(build(), X, rules=[depth()])
    Mutator(net).set_min_choices()
    assert torch.equal(again(net)(X), net(X))


def test_a_copy_has_a_depth_of_its_own():
    net = searchable(build(), X, rules=[depth()])
    other = copy.deepcopy(net)
    Mutator(other).set_min_choices()
    assert Mutator(net).current_choices == {"layer1.depth": 2, "layer2.depth": 3, "layer4.depth": 2}


def test_frozen_rows_stay():
    space = Mutator(searchable(build(), X, rules=[depth()], freeze="layer2")).space
    assert space.names == ("layer1.depth", "layer4.depth")


def test_counts_say_which_depths_there_are():
    space = Mutator(searchable(build(), X, rules=[depth("layer2", counts=[2])])).space
    assert space["layer2.depth"].choices == (2, 3)


def test_a_row_that_is_not_there_is_an_error_with_the_nearest_names():
    with pytest.raises(
        SpaceError, match="depth names 'lyer2', which is no row of residual blocks; did you mean 'layer2'"
    ):
        searchable(build(), X, rules=[depth("lyer2")])


def test_a_depth_below_one_is_an_error():
    with pytest.raises(SpaceError, match=r"a count of depth\('\*'\) must be an int of at least 1, got 0"):
        depth(counts=[0])
