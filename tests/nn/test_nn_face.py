import copy
import inspect
import pickle
from functools import partial

import pytest
import torch
from torch import nn as torch_nn

import mutorch
import mutorch.nn as nn
from mutorch import Mutator, export
from mutorch.testing import check_export


class Net(nn.Module):
    """As in a script of the older library, with another import."""

    def __init__(self):
        super().__init__()
        channels, kernel = nn.ValueChoice([1, 2], label="channels"), nn.ValueChoice([3, 5], label="kernel")
        self.features = nn.Sequential(
            nn.Conv2d(3, 8 * channels, kernel, padding=kernel // 2),
            nn.BatchNorm2d(8 * channels),
            nn.ReLU(),
            nn.LayerChoice(
                [nn.Conv2d(8 * channels, 8, 1), nn.MutableConv2d(8 * channels, 8, 3, padding=1)], label="op"
            ),
            nn.Repeat(lambda _: nn.Conv2d(8, 8, 1), (1, 3), label="depth"),
            nn.AdaptiveAvgPool2d(1),
        )
        self.dropout = nn.Dropout(nn.ValueChoice([0.1, 0.5], label="dropout"))
        self.head = nn.Parameter(torch.randn(2, 8))

    def forward(self, x):
        return nn.functional.linear(self.dropout(self.features(x).flatten(1)), self.head)


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_script_that_imports_it_as_nn_is_searchable():
    net = Net().eval()
    assert Mutator(net).space.names == ("channels", "kernel", "op", "depth", "dropout")
    check_export(net, X, num_architectures=12)


def test_the_exported_net_is_of_torch_classes_alone():
    kinds = {type(module).__module__.partition(".")[0] for module in export(Net()).modules()}
    assert kinds == {"torch", __name__.partition(".")[0]}


def test_layers_are_instances_of_the_class_that_built_them_plain_or_not():
    width = nn.ValueChoice([1, 2])
    for conv in (nn.Conv2d(1, 1, 1), nn.Conv2d(1, width, 1), torch_nn.Conv2d(1, 1, 1)):
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(conv, (nn.Linear, nn.Conv2d))
        assert isinstance(conv, nn.Conv2d | nn.Linear)
        assert not isinstance(conv, nn.Linear)
    assert type(nn.Conv2d(1, 1, 1)) is torch_nn.Conv2d
    assert issubclass(torch_nn.Conv2d, nn.Conv2d)


def test_a_subclass_of_a_layer_is_one_of_torchs_class():
    class Mine(nn.Conv2d):
        def __init__(self, width):
            super().__init__(3, width, 1)

    assert Mine.__mro__[1] is torch_nn.Conv2d
    assert isinstance(Mine(2), nn.Conv2d)
    found = nn.layer(Mine, nn.ValueChoice([2, 4]))
    assert (isinstance(found, Mine), found.weight.shape[0]) == (True, 2)


def test_containers_and_functions_are_those_of_torch():
    for name in ("Module", "Sequential", "ModuleList", "ModuleDict", "Parameter", "functional", "init", "utils"):
        assert getattr(nn, name) is getattr(torch_nn, name)


def test_every_name_of_torch_is_there():
    for name in (name for name in dir(torch_nn) if not name.startswith("_")):
        assert getattr(nn, name) == getattr(torch_nn, name)
    assert set(dir(nn)) >= set(dir(torch_nn))


def test_the_names_of_the_newer_library_are_the_same_layers():
    assert nn.MutableConv2d is nn.Conv2d
    assert nn.MutableLinear is nn.Linear


@pytest.mark.parametrize("name", ["Conv2dd", "MutableSequential", "MutableFoo"])
def test_an_unknown_name_is_an_error_that_names_near_ones(name):
    with pytest.raises(AttributeError, match=f"mutorch.nn has no '{name}', nor has torch.nn; "):
        getattr(nn, name)


def test_a_layer_class_is_a_key_like_torchs_own():
    assert {nn.Conv2d: "conv"}[torch_nn.Conv2d] == {torch_nn.Conv2d: "conv"}[nn.Conv2d] == "conv"
    assert type(nn.Linear(1, 1)) == nn.Linear  # noqa: E721  # what a table of classes asks


def test_a_layer_class_shows_the_signature_and_names_of_torchs_own():
    assert inspect.signature(nn.Conv2d) == inspect.signature(torch_nn.Conv2d)
    assert (nn.Conv2d.__name__, nn.Conv2d.__doc__) == ("Conv2d", torch_nn.Conv2d.__doc__)
    assert nn.Conv2d.forward is torch_nn.Conv2d.forward


def test_a_layer_class_pickles_and_copies_to_itself():
    assert pickle.loads(pickle.dumps(nn.Conv2d)) is nn.Conv2d
    assert copy.deepcopy(nn.Conv2d) is nn.Conv2d
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    assert pickle.loads(pickle.dumps(norm))(4).eps == 1e-3


def test_a_net_pickles_and_copies():
    net = Net().eval()
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        Mutator(net).set_max_choices(), Mutator(other).set_max_choices()
        assert torch.equal(other(X), net(X))


def test_every_layer_of_torch_is_built_as_by_torch():
    assert repr(nn.TransformerDecoderLayer(8, 2)) == repr(torch_nn.TransformerDecoderLayer(8, 2))
    assert mutorch.nn is nn
