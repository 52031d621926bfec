"""Methods that train and prune at once: the small ResNet on the digits, to half and a quarter of its MACs, at equal passes.

A pass is a forward and backward of one model on 64 images; a forward alone counts as a third of one. Every line spends 620,
as those of `pruning_quality` do: training, learning of widths, scoring of samples, recalibration of norms, and finetuning.
Reported: test accuracy in points, the mean over seeds. Nothing was chosen on these seeds or on test images; settings were
chosen on validation images with the seeds 100 and 101.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.pruning_quality import BUDGETS, PASSES, original
from mutorch.pruning import Finetune, Prices, uniform
from mutorch.pruning.finetune import finetune_
from mutorch.recipes import Training, WidthSearch, WidthSearching, fuse, fusible, searchable_by_groups
from mutorch.recipes.prune import accuracy, loss_of_labels
from mutorch.testing import ClutteredDigits
from mutorch.training import recalibrate_

CALIBRATION = 44
"""Batches of an epoch."""


@dataclass(frozen=True, slots=True)
class Made:
    """A smaller model before it is finetuned, and the passes that it took."""

    model: nn.Module
    passes: float
    lr: float


Way = Callable[[ClutteredDigits, str, int], Made]


def dcff(steps: int, lr: float = 0.03) -> Way:
    """All layers keep one share of their filters; trained with fused filters, likenesses anew each epoch."""

    def way(data: ClutteredDigits, budget: str, seed: int) -> Made:
        model = original(seed)
        mutator = fusible(model, data.example_inputs)
        prices = Prices(mutator, data.example_inputs)
        architecture = {**mutator.space.max, **uniform(prices, prices.budget({"macs": budget}), {})}
        small = fuse(model, mutator, architecture, data, Training(steps=steps), seed=seed)
        recalibrate_(small, data.loader("train", 64))
        return Made(small, steps + CALIBRATION / 3, lr)

    return way


def dmcp(steps: int, options: WidthSearching, lr: float = 0.1) -> Way:
    """Widths drawn by their probabilities, the best of some samples within the budget."""

    def way(data: ClutteredDigits, budget: str, seed: int) -> Made:
        net = searchable_by_groups(original(seed), data.example_inputs, options)
        search = WidthSearch(net, data, {"macs": budget}, Training(steps=steps), options, seed=seed)
        search.train()
        small = search.subnet(search.best()[0])
        return Made(small, search.passes, lr)

    return way


WAYS: dict[str, Way] = {
    "DCFF, trained to the end": dcff(PASSES - CALIBRATION // 3),
    "DCFF, 480 steps": dcff(480),
    "DMCP, 60 steps": dmcp(60, WidthSearching(candidates=4, calibration=4)),
}


def run(seeds: range = range(5), split: str = "test") -> dict[str, float]:
    """The means over seeds, for each way and budget."""
    torch.set_num_threads(1)
    data = ClutteredDigits()
    collected: dict[str, list[float]] = {}
    for seed in seeds:
        for budget in BUDGETS:
            for name, way in WAYS.items():
                made = way(data, budget, seed)
                before = 100 * accuracy(made.model, data, split)
                settings = Finetune(steps=int(PASSES - made.passes), lr=made.lr, distill=0.0)
                finetune_(made.model, made.model, data.loader("train", 64), loss_of_labels, settings, seed=seed)
                after = 100 * accuracy(made.model, data, split)
                collected.setdefault(f"{budget} MACs: {name}, before finetuning", []).append(before)
                collected.setdefault(f"{budget} MACs: {name}", []).append(after)
                print(f"  seed {seed}, {budget}, {name}: {before:.1f} then {after:.1f}", flush=True)
    return {name: float(np.mean(values)) for name, values in collected.items()}
