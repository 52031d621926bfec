"""Layers with searchable arguments under DistributedDataParallel, without looking for unused parameters."""

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import mutorch.nn as nn
from mutorch import Mutator
from mutorch.training import single_path_step

DATA = torch.randn(6, 8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def made():
    torch.manual_seed(0)
    width = nn.ValueChoice([4, 8], label="width")
    first = nn.Linear(4, width, bias=nn.ValueChoice([True, False], label="bias"))
    row = nn.Repeat(lambda _: nn.Linear(width, width), (0, 2), label="depth")
    return nn.Sequential(first, nn.LayerNorm(width), row, nn.Linear(width, 1)).double()


def train(net, model, rows):
    mutator, optimizer = Mutator(model), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for number in range(6):
        single_path_step(net, mutator, lambda run, x=DATA[number, rows]: run(x).square().mean(), seed=0, step=number)
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = made()
    torch.save(train(DistributedDataParallel(model), model, slice(4 * rank, 4 * rank + 4)), f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.skipif(not distributed.is_available(), reason="this torch has no distributed package")
def test_two_processes_train_what_one_does(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    model = made()
    alone = train(model, model, slice(0, 8))
    for rank in range(2):
        together = torch.load(tmp_path / f"rank{rank}.pt")
        for name, tensor in alone.items():
            torch.testing.assert_close(together[name], tensor)
