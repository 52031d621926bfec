"""What searchable widths cost: each figure as a ratio to the plain PyTorch model in the same run, or seconds of a set-up."""

import random
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import mutorch
from benchmarks.measure import in_turns
from benchmarks.resnet50 import ResNet50
from mutorch import Mutator, export, searchable

SIZES = {"batch 4 3x96x96": (4, 96, 15), "batch 1 3x32x32": (1, 32, 60)}
"""Batch, image size, and how often each is timed."""


def searchable_resnet50() -> tuple[nn.Module, nn.Module, Mutator]:
    """The plain model, the searchable copy, and its mutator."""
    torch.manual_seed(0)
    model = ResNet50().eval()
    net = searchable(model, torch.zeros(1, 3, 64, 64), rules=[mutorch.widths(ratios=(0.25, 0.5, 0.75, 1.0))])
    return model, net, Mutator(net)


def half(mutator: Mutator) -> dict[str, int]:
    """Every width at its half."""
    return {decision.name: decision.choices[1] for decision in mutator.space}


def _forward(net: nn.Module, x: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.inference_mode():
            return net(x)

    return run


def _step(net: nn.Module, x: Tensor) -> Callable[[], object]:
    def run() -> object:
        net.zero_grad(set_to_none=True)
        return net(x).sum().backward()

    return run


def forwards(figures: dict[str, float]) -> None:
    """Forward, and forward and backward, over the plain model and over the exported one."""
    model, net, mutator = searchable_resnet50()
    exported = export(net, half(mutator))
    for name, (batch, size, repeats) in SIZES.items():
        x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
        mutator.set_max_choices()
        plain, ours = in_turns(_forward(model, x), _forward(net, x), repeats=repeats)
        figures[f"ResNet-50 full width over plain, {name}"] = ours / plain
        mutator.set_choices(half(mutator))
        plain, ours = in_turns(_forward(exported, x), _forward(net, x), repeats=repeats)
        figures[f"ResNet-50 half width over exported, {name}"] = ours / plain
        plain, ours = in_turns(_step(exported, x), _step(net, x), repeats=repeats)
        figures[f"ResNet-50 half width, forward + backward over exported, {name}"] = ours / plain


def sample_and_set(figures: dict[str, float]) -> None:
    """All 37 widths drawn and set, over a plain loop; and a whole step that must read new slices."""
    _, net, mutator = searchable_resnet50()
    space, rng = mutator.space, random.Random(0)
    choices = [decision.choices for decision in space]
    holder: dict[int, int] = {}

    def ours() -> None:
        mutator.set_choices(space.sample(rng))

    def plain() -> None:
        for number, widths in enumerate(choices):
            holder[number] = widths[int(rng.random() * len(widths))]

    loop, taken = in_turns(plain, ours, repeats=30, inner=200)
    figures["sample and set 37 widths, microseconds"] = taken * 1e6
    figures["sample and set 37 widths over a plain loop"] = taken / loop
    x = torch.zeros(1, 3, 32, 32)
    architecture = half(mutator)
    exported = export(net, architecture)
    other = space.min

    def changing() -> object:
        mutator.set_choices(other)
        mutator.set_choices(architecture)
        with torch.inference_mode():
            return net(x)

    one, many = in_turns(_forward(exported, x), changing, repeats=40)
    figures["ResNet-50 half width, set before each forward, batch 1 3x32x32"] = many / one


def transformer() -> nn.Module:
    """A decoder of 300 million parameters."""
    layer = nn.TransformerEncoderLayer(1024, 16, 4096, batch_first=True, norm_first=True)
    return nn.Sequential(
        nn.Embedding(1000, 1024), nn.TransformerEncoder(layer, 24, enable_nested_tensor=False), nn.Linear(1024, 10)
    )


def observing(figures: dict[str, float]) -> None:
    """Seconds until a model is searchable, trial forwards included."""
    start = time.perf_counter()
    searchable_resnet50()
    figures["ResNet-50 searchable, seconds"] = time.perf_counter() - start
    with torch.device("meta"):
        model = transformer().eval()
        tokens = torch.zeros(1, 16, dtype=torch.long)
    start = time.perf_counter()
    net = searchable(model, tokens)
    figures["a transformer of 300M parameters on the meta device searchable, seconds"] = time.perf_counter() - start
    figures["its millions of parameters"] = sum(p.numel() for p in net.parameters()) / 1e6


def run() -> dict[str, float]:
    """All figures."""
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    observing(figures)
    sample_and_set(figures)
    forwards(figures)
    return figures
