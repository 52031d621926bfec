import pytest
import torch
from torch.utils.data import TensorDataset

from mutorch.cost import CostTable
from mutorch.errors import ConfigError, ResumeError
from mutorch.models import chain_net
from mutorch.mutables import DiffMutableOP, Softmax
from mutorch.mutators import Mutator
from mutorch.recipes import METHODS, Method, Splits, differentiable, search_by_gradient


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(32, 1, 6, 6, generator=generator), torch.randint(10, (32,), generator=generator))


# On images that are noise, operations without weights are no bad choice.
pytestmark = pytest.mark.filterwarnings("ignore:the search is collapsing")

DATA = Splits({"train": images(0), "val": images(1)})


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


class StopError(Exception):
    pass


def test_a_search_that_was_stopped_ends_like_one_that_was_not(tmp_path):
    def stop(stage, done, total, note):
        if done > 30:
            raise StopError

    options = {"method": "darts", "path_steps": 80, "batch_size": 8, "seed": 2}
    whole_net, net = build(), build()
    whole = search_by_gradient(whole_net, DATA, **options)
    with pytest.raises(StopError):
        search_by_gradient(build(), DATA, checkpoint=tmp_path / "a.ckpt", progress=stop, **options)
    looks = []
    resumed = search_by_gradient(
        net, DATA, checkpoint=tmp_path / "a.ckpt", progress=lambda _, done, *__: looks.append(done), **options
    )
    assert resumed == whole
    assert min(looks) > 30
    assert all(map(torch.equal, net.state_dict().values(), whole_net.state_dict().values()))


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    options = {"path_steps": 20, "batch_size": 8, "checkpoint": tmp_path / "a.ckpt"}
    search_by_gradient(build(), DATA, method="darts", **options)
    with pytest.raises(ResumeError, match="belongs to another run"):
        search_by_gradient(build(), DATA, method="darts", seed=1, **options)


def test_a_loss_that_becomes_sharp_stops_the_search(monkeypatch):
    from mutorch.recipes import gradient_search

    values = iter([1.0, 1.0, 1.0, 4.0])
    monkeypatch.setattr(gradient_search, "dominant_eigenvalue", lambda *_, **__: next(values))
    found = search_by_gradient(build(), DATA, method="darts", path_steps=400, batch_size=8, stop_when_sharp=True)
    assert (found.stopped, found.reason) == (True, "the loss became sharp")
    assert found.eigenvalues == [1.0, 1.0, 1.0, 4.0]


def test_the_eigenvalue_is_read_with_the_meter():
    found = search_by_gradient(build(), DATA, method="darts", path_steps=40, batch_size=8, stop_when_sharp=True)
    assert len(found.eigenvalues) == len(found.readings)


def test_what_is_expensive_is_chosen_less_where_it_costs():
    options = {"method": {"type": "darts", "arch_lr": 0.3}, "path_steps": 80, "batch_size": 8}
    table = CostTable.from_model(Mutator(build()), DATA.example_inputs)
    free, dear = (
        table(search_by_gradient(build(), DATA, cost_weight=weight, **options).architecture).macs
        for weight in (0.0, 100.0)
    )
    assert dear < free
    assert dear == table(table.cheapest()).macs


def test_skip_dropout_falls_to_nothing_and_candidates_may_compute_again():
    net = build()
    found = search_by_gradient(net, DATA, method="darts", path_steps=40, batch_size=8, skip_dropout=0.5, recompute=True)
    assert found.path_steps == 40
    assert 0 < net.block0.skip_dropout < 0.5
    assert net.block0.checkpoint
