"""Every speed figure, as a ratio to the plain PyTorch or Python equivalent in the same run."""

import copy
import random

import numpy as np
import torch
from torch import nn

from benchmarks.measure import in_turns
from benchmarks.resnet50 import ResNet50
from mutorch import CostTable, Mutator, OneShotMutableOP, export, searchable
from mutorch.models import spos_shufflenet_setting
from mutorch.registry import MODELS

CHANNELS = 32


def supernet(num_blocks: int) -> nn.Sequential:
    """A stem, blocks of four candidates, a head."""
    stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1), nn.ReLU())
    blocks = [
        OneShotMutableOP({f"conv{k}": _conv(k) for k in (1, 3, 5)} | {"skip": nn.Identity()}) for _ in range(num_blocks)
    ]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))


def _conv(kernel_size: int) -> nn.Sequential:
    conv = nn.Conv2d(CHANNELS, CHANNELS, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(CHANNELS), nn.ReLU())


def forward(batch: int, size: int, repeats: int) -> float:
    """A single path of the SPOS ShuffleNetV2 supernet (20 choice blocks) over the same net without choices."""
    net = MODELS.build(spos_shufflenet_setting()).eval()
    mutator = Mutator(net)
    architecture = mutator.space.sample(0)
    mutator.set_choices(architecture)
    static = export(net, architecture)
    x = torch.zeros(batch, 3, size, size)
    with torch.inference_mode():
        plain, ours = in_turns(lambda: static(x), lambda: net(x), repeats=repeats)
    return ours / plain


def dispatch() -> float:
    """Microseconds that one choice adds to the call of its candidate."""
    op = OneShotMutableOP({name: nn.Identity() for name in "abcd"})
    op.current_choice = "b"
    candidate, x = op.candidates["b"], torch.zeros(1)
    plain, ours = in_turns(lambda: candidate(x), lambda: op(x), repeats=15, inner=20_000)
    return (ours - plain) * 1e6


def sample_and_set(num_decisions: int) -> tuple[float, float]:
    """A whole architecture drawn and set, over a plain loop that draws and sets attributes; and its microseconds."""
    net = nn.Sequential(*(OneShotMutableOP({name: nn.Identity() for name in "abcd"}) for _ in range(num_decisions)))
    mutator, rng, space = Mutator(net), random.Random(0), Mutator(net).space
    holders = [_Holder() for _ in range(num_decisions)]
    choices = [list("abcd") for _ in range(num_decisions)]

    def plain() -> None:
        for holder, options in zip(holders, choices, strict=True):
            holder.choice = rng.choice(options)

    loop, ours = in_turns(plain, lambda: mutator.set_choices(space.sample(rng)), repeats=30, inner=200)
    return ours / loop, ours * 1e6


class _Holder:
    choice: str


def cost_of_a_million() -> float:
    """Seconds for the macs and the parameters of a million architectures of 20 decisions."""
    mutator = Mutator(supernet(20))
    table = CostTable.from_model(mutator, torch.zeros(1, 3, 64, 64))
    codes = np.random.default_rng(0).integers(0, 4, size=(1_000_000, 20), dtype=np.uint8)
    (seconds,) = in_turns(lambda: (table.evaluate(codes, "macs"), table.evaluate(codes, "params")), repeats=3)
    return seconds


def costs_of_widths() -> tuple[float, float]:
    """ResNet-50's 37 width decisions: seconds to build the table over those of a plain forward, and for a million."""
    model, x = ResNet50().eval(), torch.zeros(1, 3, 224, 224)
    net = searchable(model, torch.zeros(1, 3, 64, 64))
    mutator = Mutator(net)
    with torch.no_grad():
        forward, build = in_turns(lambda: model(x), lambda: CostTable.from_model(mutator, x), repeats=5)
    table = CostTable.from_model(mutator, x)
    counts = [len(decision.choices) for decision in mutator.space]
    codes = np.random.default_rng(0).integers(0, counts, size=(1_000_000, len(counts)), dtype=np.uint8)
    (seconds,) = in_turns(lambda: (table.evaluate(codes, "macs"), table.evaluate(codes, "params")), repeats=5)
    return build / forward, seconds


def export_over_deepcopy() -> float:
    """Exporting a subnet over deep-copying the same subnet."""
    net = supernet(20)
    mutator = Mutator(net)
    architecture = dict.fromkeys(mutator.space.names, "conv3")
    static = export(net, architecture)
    copying, exporting = in_turns(
        lambda: copy.deepcopy(static), lambda: export(net, architecture, mutator=mutator), repeats=30
    )
    return exporting / copying


def run() -> dict[str, float]:
    """All figures by name."""
    torch.set_num_threads(1)
    ratio20, micro20 = sample_and_set(20)
    ratio200, micro200 = sample_and_set(200)
    width_table, width_million = costs_of_widths()
    return {
        "forward, 20 choice blocks, batch 32 3x64x64, over the static net": forward(32, 64, 41),
        "forward, 20 choice blocks, batch 1 3x32x32, over the static net": forward(1, 32, 400),
        "dispatch of one choice, microseconds": dispatch(),
        "sample and set 20 decisions, over a plain loop": ratio20,
        "sample and set 20 decisions, microseconds": micro20,
        "sample and set 200 decisions, over a plain loop": ratio200,
        "sample and set 200 decisions, microseconds": micro200,
        "cost of a million architectures, seconds": cost_of_a_million(),
        "cost table of ResNet-50's widths, over a plain forward": width_table,
        "cost of a million ResNet-50s by width, seconds": width_million,
        "export, over deep-copying the subnet": export_over_deepcopy(),
    }
