import pytest
import torch
from torch.utils.data import TensorDataset

from mutorch.errors import ConfigError
from mutorch.models import chain_net
from mutorch.mutables import DiffMutableOP, Softmax
from mutorch.mutators import Mutator
from mutorch.recipes import METHODS, Method, differentiable, search_by_gradient


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(32, 1, 6, 6, generator=generator), torch.randint(10, (32,), generator=generator))


# On images that are noise, operations without weights are no bad choice.
pytestmark = pytest.mark.filterwarnings("ignore:the search is collapsing")

DATA = {"train": images(0), "val": images(1)}


def build():
    torch.manual_seed(0)
    return chain_net(mutable=DiffMutableOP)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_spends_its_budget_and_decides(method):
    net = build()
    found = search_by_gradient(net, DATA, method=method, path_steps=60, batch_size=8)
    assert found.architecture in Mutator(net).space
    assert 60 <= found.path_steps < 60 + 20
    assert not found.stopped
    assert found.readings


def test_the_same_seed_finds_the_same():
    runs = [search_by_gradient(build(), DATA, path_steps=40, batch_size=8, seed=3).readings for _ in range(2)]
    assert runs[0] == runs[1]


def test_too_many_skips_stop_the_search():
    collapsing = Method("gradient", Softmax(), Softmax(), arch_lr=0.0)
    net = build()
    found = search_by_gradient(net, DATA, method=collapsing, path_steps=400, batch_size=8, max_skips=-1)
    assert found.stopped
    assert found.path_steps < 100


def test_the_winner_is_reported_beside_random_architectures_trained_equally_long():
    lines = []
    found, winner, accuracies = differentiable(
        build, DATA, path_steps=30, retrain_steps=2, num_random=2, report=lines.append, batch_size=8
    )
    assert list(accuracies) == ["winner", "random 0", "random 1"]
    assert not any(isinstance(m, DiffMutableOP) for m in winner.modules())
    assert sum("trained alone for 2 steps" in line for line in lines) == 3
    assert found.architecture


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="no method 'dart'; did you mean 'darts'"):
        search_by_gradient(build(), DATA, method="dart")
