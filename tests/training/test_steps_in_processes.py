"""Steps under DistributedDataParallel: two processes do what one does with the same global batch."""

import itertools

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mutorch.models import chain_net
from mutorch.mutables import MutableValue, OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.training import single_path_step, strict_fair_step

STEPS = {"single path": single_path_step, "strict fair": strict_fair_step}
CASES = {
    (step, find_unused, bucket_view): {"find_unused_parameters": find_unused, "gradient_as_bucket_view": bucket_view}
    for step, find_unused, bucket_view in itertools.product(STEPS, (False, True), (False, True))
}
DATA = torch.randn(6, 8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def supernet():
    """No batch norm: its statistics would differ between one process and two."""
    torch.manual_seed(0)

    def block():
        return OneShotMutableOP(
            {"a": nn.Linear(4, 4), "b": nn.Sequential(nn.Linear(4, 4), nn.Tanh()), "c": nn.Identity()}
        )

    return nn.Sequential(nn.Linear(4, 4), block(), block(), nn.Linear(4, 1)).double()


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.depth = MutableValue([1, 2, 3])
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        for layer in self.layers[: self.depth.current_choice]:
            x = layer(x)
        return x


def train(net, mutator, step, rows, steps=6):
    """Weights after some steps, and which parameters had a gradient in each."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    with_gradient = []
    for number in range(steps):
        data = DATA[number, rows]
        step(net, mutator, lambda model, x=data: model(x).square().mean(), seed=0, step=number)
        with_gradient.append([n for n, p in mutator.model.named_parameters() if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad(set_to_none=number % 2 == 0)
    return {"weights": mutator.model.state_dict(), "with gradient": with_gradient}


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    rows = slice(4 * rank, 4 * rank + 4)
    results = {}
    for (name, find_unused, bucket_view), options in CASES.items():
        net = supernet()
        results[name, find_unused, bucket_view] = train(
            DistributedDataParallel(net, **options), Mutator(net), STEPS[name], rows
        )
    deep = Deep().double()
    wrapped = DistributedDataParallel(deep, find_unused_parameters=True)
    results["deep"] = train(wrapped, Mutator(deep), single_path_step, rows)
    chain = chain_net(in_channels=1)
    wrapped, mutator = DistributedDataParallel(chain), Mutator(chain)
    for number in range(3):
        images = torch.ones(4, 1, 8, 8) * (rank + 1)
        single_path_step(wrapped, mutator, lambda model, x=images: model(x).square().mean(), seed=0, step=number)
    results["chain"] = {name: p.grad for name, p in chain.named_parameters() if p.grad is not None}
    torch.save(results, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_train_as_one_with_the_same_global_batch(results, case):
    first, second = (result[case] for result in results)
    net = supernet()
    alone = train(net, Mutator(net), STEPS[case[0]], slice(0, 8))
    assert_equal(first["weights"], second["weights"])
    for name, tensor in first["weights"].items():
        torch.testing.assert_close(tensor, alone["weights"][name], msg=name)
    assert first["with gradient"] == second["with gradient"] == alone["with gradient"]


def test_a_single_path_leaves_most_parameters_without_gradient(results):
    used = results[0]["single path", False, False]["with gradient"]
    assert all(4 <= len(names) <= 8 for names in used)
    assert len(set(map(tuple, used))) > 1


def test_a_depth_needs_find_unused_parameters_and_then_trains_as_one_process(results):
    net = Deep().double()
    alone = train(net, Mutator(net), single_path_step, slice(0, 8))
    assert_equal(results[0]["deep"]["weights"], results[1]["deep"]["weights"])
    for name, tensor in results[0]["deep"]["weights"].items():
        torch.testing.assert_close(tensor, alone["weights"][name], msg=name)


def test_gradients_accumulated_over_steps_are_equal_on_both_ranks(results):
    assert_equal(results[0]["chain"], results[1]["chain"])
    assert any("_candidates" in name for name in results[0]["chain"])
