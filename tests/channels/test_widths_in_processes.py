"""Searchable widths under DistributedDataParallel: every parameter has a gradient whatever is active."""

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mutorch import Mutator, searchable, set_mode_, widths
from mutorch.space import random_at
from mutorch.training import single_path_step

DATA = torch.randn(6, 8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Net(nn.Module):
    """No batch norm: its statistics would differ between one process and two."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 12), nn.Tanh())
        self.gate, self.head = nn.Linear(4, 12), nn.Linear(12, 1)

    def forward(self, x):
        return self.head(self.layers(x) * self.gate(x).sigmoid())


def made(mode):
    net = searchable(Net().double(), DATA[0], rules=[widths(ratios=(0.25, 0.5, 1.0), divisor=1)])
    set_mode_(net, mode)
    return net


def train(net, model, rows):
    """Weights after six steps, each on an architecture of its own."""
    mutator, optimizer = Mutator(model), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for number in range(6):
        if number % 2:
            single_path_step(
                net, mutator, lambda run, x=DATA[number, rows]: run(x).square().mean(), seed=0, step=number
            )
        else:
            mutator.set_choices(mutator.space.sample(random_at(0, "processes", number)))
            net(DATA[number, rows]).square().mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for mode in ("slice", "mask"):
        model = made(mode)
        results[mode] = train(DistributedDataParallel(model), model, slice(4 * rank, 4 * rank + 4))
    torch.save(results, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("mode", ["slice", "mask"])
def test_two_processes_train_widths_as_one_with_the_same_global_batch(results, mode):
    model = made(mode)
    alone = train(model, model, slice(0, 8))
    first, second = (result[mode] for result in results)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    torch.testing.assert_close(first, dict(alone))


def test_both_modes_train_the_same_weights(results):
    torch.testing.assert_close(results[0]["slice"], results[0]["mask"])
