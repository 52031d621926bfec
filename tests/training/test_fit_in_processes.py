"""`fit` with two processes through Fabric: data is split, ranks stay equal, and a crash is resumed."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mutorch.errors import ConfigError
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.training import fit, single_path_step, strict_fair_step

lightning_fabric = pytest.importorskip("lightning_fabric")

DATA = torch.randn(24, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
STEPS = {"single path": single_path_step, "strict fair": strict_fair_step}


class Crash(Exception):  # noqa: N818
    pass


def train(fabric, step, *, batch_size, seen=None, checkpoint=None, crash_at=None, dropout=0.0, shuffle=False):
    torch.manual_seed(0)
    block = OneShotMutableOP({"a": nn.Linear(3, 3), "b": nn.Identity(), "c": nn.Linear(3, 3, bias=False)})
    net = nn.Sequential(block, nn.Dropout(dropout), nn.Linear(3, 1)).double()

    def loss_fn(model, batch):
        if seen is not None:
            seen.extend(batch[0][:, 0].tolist())
        return model(batch[0]).square().mean()

    def on_step(number, total, loss):
        if number == crash_at:
            raise Crash

    fit(
        net,
        DataLoader(TensorDataset(DATA), batch_size=batch_size, shuffle=shuffle),
        loss_fn,
        torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1),
        steps=8,
        mutator=Mutator(net),
        step=step,
        fabric=fabric,
        checkpoint=checkpoint,
        checkpoint_every=2,
        on_step=on_step,
    )
    return net.state_dict()


def work(fabric, folder):
    rank, results = fabric.global_rank, {}
    for name, step in STEPS.items():
        results[name] = train(fabric, step, batch_size=4)
    options = {"batch_size": 4, "dropout": 0.5, "shuffle": True}
    seen = []
    results["whole"] = train(fabric, single_path_step, seen=seen, **options)
    results["seen"] = torch.tensor(seen[:12], dtype=torch.float64)
    try:
        train(fabric, single_path_step, checkpoint=f"{folder}/state.pt", crash_at=5, **options)
    except Crash:
        results["resumed"] = train(fabric, single_path_step, checkpoint=f"{folder}/state.pt", **options)
    try:
        sampler = torch.utils.data.BatchSampler(range(24), 4, drop_last=False)
        net = nn.Linear(3, 1).double()
        data = DataLoader(TensorDataset(DATA), batch_sampler=sampler)
        fit(net, data, lambda m, b: m(b[0]).sum(), torch.optim.SGD(net.parameters()), steps=1, fabric=fabric)
    except ConfigError as error:
        results["error"] = str(error)
    torch.save(results, f"{folder}/rank{rank}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    fabric = lightning_fabric.Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn")
    fabric.launch(work, str(folder))
    return [torch.load(Path(folder) / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", [*STEPS, "whole", "resumed"])
def test_both_processes_have_the_same_weights(results, case):
    for name, tensor in results[0][case].items():
        assert torch.equal(tensor, results[1][case][name])


@pytest.mark.parametrize("case", STEPS)
def test_two_processes_train_as_one_with_the_same_global_batch(results, case):
    # Rank 0 takes samples 0, 2, 4 ... and rank 1 the others: four each are the eight of one process.
    alone = train(lightning_fabric.Fabric(accelerator="cpu", devices=1), STEPS[case], batch_size=8)
    for name, tensor in results[0][case].items():
        torch.testing.assert_close(tensor, alone[name], msg=name)


def test_a_crash_is_resumed_to_the_same_bits_with_dropout_and_shuffling(results):
    for rank in range(2):
        for name, tensor in results[rank]["resumed"].items():
            assert torch.equal(tensor, results[rank]["whole"][name])


def test_an_epoch_is_split_over_the_processes(results):
    shares = [result["seen"].tolist() for result in results]
    assert sorted(shares[0] + shares[1]) == sorted(DATA[:, 0].tolist())
    assert shares[0] != DATA[0::2, 0].tolist()


def test_a_loader_that_cannot_be_split_is_refused(results):
    assert results[0]["error"].startswith("a DataLoader with a batch_sampler cannot be split over processes")
