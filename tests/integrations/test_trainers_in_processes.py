"""Both trainers on two processes: they do what one does with the same global batch."""

import os
import socket

import pytest
import test_lightning
import test_transformers
import torch
from torch.utils.data import DataLoader, TensorDataset

from mutorch import Mutator
from mutorch.integrations import lightning, transformers

pytestmark = test_lightning.pytestmark
LIGHTNING = {
    "a step": (test_lightning.Classifier, {"every": "step"}),
    "a batch": (test_lightning.Classifier, {"every": "batch"}),
    "a sandwich": (test_lightning.BySandwich, {"sample": None}),
}
TRANSFORMERS = {
    "widths": (test_transformers.supernet, {"every": "step"}),
    "widths, a batch": (test_transformers.supernet, {"every": "batch"}),
    "modules, a batch": (test_transformers.Choosy, {"every": "batch"}),
}


def with_lightning(case, folder, part=slice(None), **options):
    make, sampling = LIGHTNING[case]
    module = make()
    accumulate = 1 if make is test_lightning.BySandwich else 2
    callback = lightning.SupernetCallback(Mutator(module.net), seed=3, **sampling)
    data = TensorDataset(test_lightning.X[part], test_lightning.Y[part])
    run = test_lightning.trainer(folder, callback, accumulate_grad_batches=accumulate, **options)
    run.fit(module, DataLoader(data, batch_size=8 // options.get("devices", 1)))
    return {"seen": module.seen, "weights": module.net.state_dict()}


def with_transformers(case, folder, **options):
    make, sampling = TRANSFORMERS[case]
    net = make()
    callback = transformers.SupernetCallback(Mutator(net), seed=3, **sampling)
    plain = {
        "optim": "sgd",  # Adam amplifies rounding
        "max_grad_norm": 0.0,
        "gradient_accumulation_steps": 2,
        "average_tokens_across_devices": False,  # this version multiplies BERT's mean by the number of processes
    }
    run = test_transformers.trainer(folder, net, callback, **plain, **options)
    run.train()
    return {"seen": run.seen, "weights": net.state_dict()}


def work(rank, folder, port):
    """One of two processes."""
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ.update(where, RANK=str(rank), LOCAL_RANK=str(rank))
    two = {"devices": 2, "strategy": "ddp_find_unused_parameters_true", "use_distributed_sampler": False}
    results = {case: with_lightning(case, folder, slice(rank, None, 2), **two) for case in LIGHTNING}
    for case in TRANSFORMERS:
        results[case] = with_transformers(
            case, folder, ddp_find_unused_parameters="modules" in case, per_device_train_batch_size=4
        )
    torch.save(results, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, args=(str(folder), port), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def assert_equal(results, case, alone):
    first, second = (result[case] for result in results)
    assert first["seen"] == second["seen"] == alone["seen"]
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
        torch.testing.assert_close(tensor, alone["weights"][name], msg=name)


@pytest.mark.parametrize("case", LIGHTNING)
def test_two_processes_of_lightning_train_as_one_with_the_same_global_batch(results, tmp_path, case):
    assert_equal(results, case, with_lightning(case, tmp_path))


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_two_processes_of_transformers_train_as_one_with_the_same_global_batch(results, tmp_path, case):
    assert_equal(results, case, with_transformers(case, tmp_path))
