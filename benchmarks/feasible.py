"""Candidates within a budget: how long until the first, and how many a second, for budgets that few architectures meet.

Three spaces, the budgets at quantiles of one, two and three metrics such that all bounds together leave 1 in 100, 10,000 and a
million architectures. Each figure is of a fresh `Feasible`: time to make it, time of its first draw, and draws a second of the
next 200, decoding and the check for repetitions included. Processor time of one thread: others on the machine do not count.
`results/feasible_before.json` has the same of commit 7db3db7, which tried random architectures and moved them towards a known one.
"""

import time

import numpy as np
import torch

from benchmarks.resnet50 import ResNet50
from mutorch import CostTable, Mutator, searchable
from mutorch.channels import widths
from mutorch.cost import Budget
from mutorch.models import spos_mobilenet_setting, spos_shufflenet_setting
from mutorch.registry import MODELS
from mutorch.search import Feasible, profile

SHARES = {"1%": 1e-2, "0.01%": 1e-4, "1e-6": 1e-6}
METRICS = ("macs", "params", "act_mem_mb")
DRAWS = 200


def spaces() -> dict[str, CostTable]:
    """Tables of a ShuffleNetV2 and a MobileNetV2 of layer choices, and of a ResNet-50 whose widths are searched."""
    image = torch.zeros(1, 3, 224, 224, device="meta")
    with torch.device("meta"):
        nets = {
            "ShuffleNetV2 blocks": MODELS.build(spos_shufflenet_setting()),
            "MobileNetV2 blocks": MODELS.build(spos_mobilenet_setting()),
            "ResNet-50 widths": searchable(
                ResNet50(), image, rules=[widths(ratios=[n / 8 for n in range(1, 9)], divisor=8)]
            ),
        }
    return {name: CostTable.from_model(Mutator(net), image, num_checks=0) for name, net in nets.items()}


def budget_at(table: CostTable, share: float, number: int) -> Budget:
    """Upper bounds on some metrics, each at the same place between its smallest and its largest value."""
    ends = {metric: table.reachable(metric) for metric in METRICS[:number]}
    low, high = 0.0, 1.0
    for _ in range(14):
        place = (low + high) / 2
        bounds = {metric: (-np.inf, first + place * (last - first)) for metric, (first, last) in ends.items()}
        low, high = (low, place) if profile(table, Budget(bounds), samples=8192).share > share else (place, high)
    return Budget({metric: (-np.inf, first + high * (last - first)) for metric, (first, last) in ends.items()})


def run() -> dict[str, float]:
    """All figures by name."""
    torch.set_num_threads(1)
    figures = {}
    for name, table in spaces().items():
        for share_name, share in SHARES.items():
            for number in range(1, len(METRICS) + 1):
                budget = budget_at(table, share, number)
                what = f"{name}, {share_name}, {number} budget{'s' if number > 1 else ''}"
                for figure, value in measure(table, budget).items():
                    figures[f"{what}: {figure}"] = value
    return figures


def measure(table: CostTable, budget: Budget) -> dict[str, float]:
    """The figures of one budget."""
    start = time.process_time()
    feasible = Feasible(table.space, table, budget)
    made = time.process_time()
    first = feasible.draw(0)
    drawn = time.process_time()
    others = [feasible.draw(seed) for seed in range(1, DRAWS + 1)]
    end = time.process_time()
    found = [one for one in (first, *others) if one is not None]
    assert all(budget.allows(table(architecture)) for architecture in found)
    return {
        "milliseconds to make": (made - start) * 1e3,
        "milliseconds to the first": (drawn - made) * 1e3,
        "draws a second": DRAWS / (end - drawn),
        "drawn of 201": float(len(found)),
    }
