"""Differentiable search in two processes: the architecture is that of one process with the same global batch."""

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mutorch.mutables import DiffMutableOP, Gumbel, OneHot, Softmax, TwoPaths
from mutorch.mutators import Mutator
from mutorch.training import (
    arch_step,
    dominant_eigenvalue,
    joint_step,
    policy_step,
    relaxed_step,
    unrolled_arch_step,
)

DATA = torch.randn(8, 2, 8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CASES = {
    "DARTS, first order": Softmax(),
    "DARTS, second order": Softmax(),
    "GDAS": Gumbel(single_path=True),
    "ProxylessNAS": TwoPaths(),
    "DSNAS": OneHot(),
    "samples": Softmax(),
}


def supernet():
    """No batch norm: its statistics would differ between one process and two."""
    torch.manual_seed(0)

    def block():
        return DiffMutableOP({"a": nn.Linear(4, 4), "b": nn.Sequential(nn.Linear(4, 4), nn.Tanh()), "c": nn.Identity()})

    return nn.Sequential(nn.Linear(4, 4), block(), block(), nn.Linear(4, 1)).double()


def search(net, model, method, rows):
    """Architecture parameters, weights and architecture after some steps."""
    mutator = Mutator(model)
    mutator.prepare_arch_params(relaxation=CASES[method])
    weights = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    architecture = torch.optim.Adam(mutator.arch_parameters(), lr=0.2)
    for step, (train, val) in enumerate(DATA):
        losses = [lambda m, x=x: (m(x[rows]).squeeze(1) - x[rows, 0]).square().mean() for x in (train, val)]
        options = {"seed": 0, "step": step}
        if method == "DARTS, second order":
            unrolled_arch_step(mutator, *losses, weights, **options)
        elif method == "samples":
            policy_step(mutator, losses[1], **options)
        elif method != "DSNAS":
            arch_step(net, mutator, losses[1], **options)
        architecture.step()
        architecture.zero_grad()
        if method == "DSNAS":
            joint_step(net, mutator, losses[0], **options)
            architecture.step()
            architecture.zero_grad()
        else:
            relaxed_step(net, mutator, losses[0], **options)
        weights.step()
        weights.zero_grad()
    found = {"arch": mutator.state_dict()["arch_params"], "weights": model.state_dict(), "best": mutator.argmax()}
    mutator.relax()
    sharp = dominant_eigenvalue(mutator, losses[1], relaxation=Softmax(), **options)
    return {**found, "sharpness": {"eigenvalue": torch.tensor(sharp)}}


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    rows = slice(4 * rank, 4 * rank + 4)
    results = {}
    for method in CASES:
        model = supernet()
        results[method] = search(DistributedDataParallel(model), model, method, rows)
    torch.save(results, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("method", CASES)
def test_two_processes_find_what_one_finds_with_the_same_global_batch(results, method):
    first, second = (result[method] for result in results)
    model = supernet()
    alone = search(model, model, method, slice(0, 8))
    assert first["best"] == second["best"] == alone["best"]
    for part in ("arch", "weights", "sharpness"):
        for name, tensor in first[part].items():
            assert torch.equal(tensor, second[part][name])
            torch.testing.assert_close(tensor, alone[part][name], msg=name, rtol=1e-5, atol=1e-7)
