"""What differentiable search costs: mixed operations against the sum written by hand, and the memory of sampled paths."""

import statistics

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mutorch.models import chain_net
from mutorch.mutables import DiffMutableOP, OneHot, Softmax, TwoPaths
from mutorch.mutators import Mutator
from mutorch.training import relaxed_step

from .measure import in_turns


def _candidates(channels: int) -> dict[str, nn.Module]:
    def conv(kernel: int) -> nn.Module:
        layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())

    return {"skip": nn.Identity(), "pool": nn.MaxPool2d(3, 1, 1), "conv3": conv(3), "conv5": conv(5)}


def mixture() -> dict[str, float]:
    """Forward and backward of a `DiffMutableOP` over that of the same sum written by hand."""
    torch.manual_seed(0)
    candidates = _candidates(16)
    op = DiffMutableOP(candidates)
    modules = list(candidates.values())
    logits = nn.Parameter(torch.zeros(4))
    op.set_forward_args(logits)
    x = torch.randn(16, 16, 16, 16)

    def by_hand() -> None:
        weights = torch.softmax(logits, -1)
        sum(weight * module(x) for weight, module in zip(weights, modules, strict=True)).sum().backward()

    def ours() -> None:
        op(x).sum().backward()

    ratios = []
    for _ in range(5):
        hand, own = in_turns(by_hand, ours, repeats=60)
        ratios.append(own / hand)
    return {"DiffMutableOP over the sum by hand, forward and backward": statistics.median(ratios)}


def _peak(run: object) -> int:
    """The most bytes that were alive at once on the CPU while it ran, from the allocator's own events."""
    assert callable(run)
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=False) as profiled:
        run()
    alive = most = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)
    return most


def memory() -> dict[str, float]:
    """The peak memory of a step over that of the largest path alone, for relaxations."""
    x, labels = torch.randn(256, 1, 16, 16), torch.randint(10, (256,))

    def loss(model: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(model(x), labels)

    found = {}
    for name, relaxation in {"one path": OneHot(), "two paths": TwoPaths(), "all candidates": Softmax()}.items():
        torch.manual_seed(0)
        net = chain_net(mutable=DiffMutableOP)
        mutator = Mutator(net)
        mutator.prepare_arch_params(relaxation=relaxation)

        def path(architecture: dict[str, object], net: nn.Module = net, mutator: Mutator = mutator) -> None:
            with mutator.at(architecture):
                loss(net).backward()
            net.zero_grad()

        def step(number: int, net: nn.Module = net, mutator: Mutator = mutator) -> None:
            mutator.relax()
            relaxed_step(net, mutator, loss, seed=0, step=number)
            net.zero_grad()

        largest = max(
            _peak(lambda choice=choice: path({f"block{i}": choice for i in range(4)}))
            for choice in ("skip", "maxpool", "separable", "conv3x3")
        )
        steps = max(_peak(lambda number=number: step(number)) for number in range(8))
        found[f"peak memory of a step with {name} over the largest path"] = steps / largest
    return found


def run() -> dict[str, float]:
    """All figures."""
    torch.set_num_threads(1)
    return {**mixture(), **memory()}
