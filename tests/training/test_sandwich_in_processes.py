"""Sandwiches under DistributedDataParallel: two processes do what one does with the same global batch."""

import itertools
from functools import partial

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mutorch import depth, searchable, widths
from mutorch.channels import SlimmableChannelUnit
from mutorch.mutables import OneShotMutableOP, OneShotMutableValue
from mutorch.mutators import ChannelMutator, Mutator
from mutorch.ops import DynamicConv2d
from mutorch.ops.kernel import LearnedTransform
from mutorch.training import protect, sandwich_step, single_path_step, slimmable_step

DATA = torch.randn(6, 8, 2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x).tanh()


def elastic():
    """Widths, depths, kernels and operations; no batch norm: its statistics would differ between one process and two."""
    torch.manual_seed(0)
    kernels = DynamicConv2d(8, 8, 5, padding=2, kernel=LearnedTransform())
    kernels.register_mutable_attr("kernel_size", OneShotMutableValue([1, 3, 5], alias="kernel"))
    rows = nn.Sequential(Residual(), Residual(), Residual())
    op = OneShotMutableOP({"conv": nn.Conv2d(8, 8, 1), "skip": nn.Identity()})
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3), rows, kernels, op, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).double()
    net = searchable(model, DATA[0, :1], rules=[widths(counts=[2, 4, 8]), depth()])
    return net, Mutator(net)


def slimmable():
    torch.manual_seed(0)
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), *head).double().eval()
    unit = {"type": SlimmableChannelUnit, "default_args": {"candidate_choices": [2, 4, 8]}}
    demo = {"type": "ChannelAnalyzer", "demo_input": DATA[0, :1]}
    mutator = ChannelMutator(unit, demo)
    mutator.prepare_from_supernet(model)
    return model, mutator


def one_width_each(net, mutator, loss_fn, *, seed, step):
    """A slimmable step that leaves one of the three widths out, norms included."""
    (name,) = mutator.space.names
    architectures = [{name: width} for width in ((8, 4), (4, 2), (8, 2))[step % 3]]
    return slimmable_step(net, mutator, loss_fn, architectures, distill=True)


CASES = {
    (name, find_unused, bucket_view): {"find_unused_parameters": find_unused, "gradient_as_bucket_view": bucket_view}
    for name, (find_unused, bucket_view) in [
        *itertools.product(("sandwich", "slimmable"), itertools.product((False, True), (False, True))),
        ("sandwich, no distillation", (False, False)),
        ("single path", (False, False)),
    ]
}
BUILD = {"slimmable": (slimmable, one_width_each), "single path": (elastic, single_path_step)}
BUILD |= {"sandwich": (elastic, partial(sandwich_step, num_random=1))}
BUILD |= {"sandwich, no distillation": (elastic, partial(sandwich_step, num_random=1, distill=False))}


def train(net, mutator, step, rows, steps=6):
    """Weights after some steps of a protected optimizer, and which parameters had a gradient in each."""
    optimizer = torch.optim.SGD(mutator.model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    protect(optimizer, net)
    with_gradient = []
    for number in range(steps):
        data = DATA[number, rows]
        step(net, mutator, lambda model, x=data: (model(x) - 1).square().mean(), seed=0, step=number)
        with_gradient.append([n for n, p in mutator.model.named_parameters() if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad(set_to_none=number % 2 == 0)
    weights = {name: parameter.detach().clone() for name, parameter in mutator.model.named_parameters()}
    return {"weights": weights, "with gradient": with_gradient}


def work(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for case, options in CASES.items():
        build, step = BUILD[case[0]]
        net, mutator = build()
        results[case] = train(DistributedDataParallel(net, **options), mutator, step, slice(4 * rank, 4 * rank + 4))
    torch.save(results, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_train_as_one_with_the_same_global_batch(results, case):
    first, second = (result[case] for result in results)
    build, step = BUILD[case[0]]
    alone = train(*build(), step, slice(0, 8))
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
        torch.testing.assert_close(tensor, alone["weights"][name], msg=name)
    assert first["with gradient"] == second["with gradient"] == alone["with gradient"]


def test_a_single_path_leaves_out_blocks_and_matrices_and_a_sandwich_nothing(results):
    sandwich = results[0]["sandwich", False, False]["with gradient"]
    assert all("1.2.conv.weight" in names for names in sandwich)
    assert all("2.trans_matrix_3to1" in names and "2.trans_matrix_5to3" in names for names in sandwich)
    single = results[0]["single path", False, False]["with gradient"]
    assert {"1.2.conv.weight" in names for names in single} == {True, False}
    assert {"2.trans_matrix_5to3" in names for names in single} == {True, False}


def test_norms_of_widths_that_a_step_leaves_out_get_no_gradient(results):
    norms = [
        [name for name in names if name.startswith("1.")]
        for names in results[0]["slimmable", False, False]["with gradient"]
    ]
    assert norms[0] == ["1.weight", "1.bias", "1.candidate_bn.4.weight", "1.candidate_bn.4.bias"]
    assert "1.weight" not in norms[1]
