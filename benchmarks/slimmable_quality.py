"""Nets of many widths that are trained once: accuracy of the small ResNet on the digits at half and a quarter of its MACs.

A pass is a forward and backward of one architecture on 64 images. Every way trains 2000 passes (SGD, momentum 0.9 Nesterov,
weight decay 5e-4, cosine) and gives a net for each budget, whose accuracy is noted as it is, with BatchNorm recalibrated
where all widths share it, and once more after 120 steps of its own (cosine from 0.03, no teacher): 2120 passes in all. AutoSlim
scores its candidates besides, on all validation images.
Reported: test accuracy in points, the mean over seeds; what was chosen was chosen on validation images with the seeds 100
and 101.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pruning_quality import original
from mutorch import Mutator, export, searchable, widths
from mutorch.cost import CostTable, count
from mutorch.pruning import Finetune
from mutorch.pruning.allocation import uniform
from mutorch.pruning.finetune import finetune_
from mutorch.pruning.prices import Prices
from mutorch.recipes import slimmable_net, uniform_paths
from mutorch.search import greedy_slim
from mutorch.testing import ClutteredDigits
from mutorch.training import fit, sandwich_step, slimmable_step
from mutorch.training.steps import LossFunction
from mutorch.utils import evaluating

PASSES = 2000
BUDGETS = ("50%", "25%")
FINETUNE = Finetune(steps=120, lr=0.03, distill=0.0)
SIXTEENTHS = tuple(count / 16 for count in range(7, 17))
"""The shares of its channels that a unit may have: the narrowest net has just less than a quarter of the MACs."""

Subnets = Callable[[str], nn.Module]
"""Takes a budget, gives the net for it, ready to be evaluated."""
Way = Callable[[ClutteredDigits, int], Subnets]
"""Takes the data and a seed, trains `PASSES` passes, and gives the nets."""


def us_net(data: ClutteredDigits, seed: int, *, num_random: int = 2, lr: float = 0.1, distill: bool = True) -> Subnets:
    """Universally slimmable: the sandwich rule and in-place distillation, then all layers slimmed alike."""
    mutator = sandwiched_net(data, seed, partial(sandwich_step, num_random=num_random, distill=distill), num_random, lr)
    return slimmed_alike(mutator, data)


def us_net_one_share(data: ClutteredDigits, seed: int, *, num_random: int = 2, lr: float = 0.1) -> Subnets:
    """As `us_net`, but with one random share for all layers of a random net, as the paper has it."""

    def step(net: nn.Module, mutator: Mutator, loss_fn: LossFunction, *, seed: int, step: int, backward: Any) -> Tensor:
        paths = uniform_paths(mutator.space, seed, step, num_random)
        return slimmable_step(net, mutator, loss_fn, paths, distill=True, backward=backward)

    return slimmed_alike(sandwiched_net(data, seed, step, num_random, lr), data)


def autoslim(data: ClutteredDigits, seed: int, *, num_random: int = 2, lr: float = 0.1) -> Subnets:
    """AutoSlim: as `us_net`, then greedy slimming by the likelihood of the validation images, which no pass is counted for.

    Candidates are recalibrated on 16 batches, the two that are taken home on all.
    """
    mutator = sandwiched_net(data, seed, partial(sandwich_step, num_random=num_random), num_random, lr)
    table = CostTable.from_model(mutator, data.example_inputs)
    images = [x for x, _ in data.loader("train", 64)]
    inputs, labels = data["val"].tensors

    def likelihood(model: nn.Module) -> float:
        with torch.inference_mode():
            return -float(F.cross_entropy(model(inputs), labels))

    budgets = [{"macs": budget} for budget in BUDGETS]
    found = greedy_slim(mutator.model, mutator, table, likelihood, budgets, calibrate=images[:16])
    chosen = {budget: one.architecture for budget, one in zip(BUDGETS, found, strict=True)}
    return lambda budget: export(mutator.model, chosen[budget], calibrate=images)


def slimmable(data: ClutteredDigits, seed: int, *, lr: float = 0.1) -> Subnets:
    """A slimmable network of three widths, the two of the budgets among them, with batch norms of their own."""
    budgets = [{"macs": budget} for budget in BUDGETS]
    mutator, architectures = slimmable_net(original(seed), data.example_inputs, budgets=budgets, divisor=1)

    def step(net: nn.Module, mutator: Mutator, loss_fn: LossFunction, *, seed: int, step: int, backward: Any) -> Tensor:
        return slimmable_step(net, mutator, loss_fn, architectures, backward=backward)

    train(mutator, data, seed, step, PASSES // len(architectures), lr)
    narrow = dict(zip(BUDGETS, architectures[1:], strict=True))
    return lambda budget: export(mutator.model, narrow[budget], mutator=mutator)


def sandwiched_net(
    data: ClutteredDigits, seed: int, step: Callable[..., Tensor], num_random: int, lr: float
) -> Mutator:
    """The mutator of a net that was trained at its largest, its smallest and random widths."""
    mutator = Mutator(searchable(original(seed), data.example_inputs, rules=[widths(ratios=SIXTEENTHS, divisor=1)]))
    train(mutator, data, seed, step, PASSES // (2 + num_random), lr)
    return mutator


def slimmed_alike(mutator: Mutator, data: ClutteredDigits) -> Subnets:
    """The nets of one share in all layers."""
    prices = Prices(mutator, data.example_inputs)
    images = [x for x, _ in data.loader("train", 64)]
    return lambda budget: export(mutator.model, uniform(prices, prices.budget({"macs": budget}), {}), calibrate=images)


def train(
    mutator: Mutator, data: ClutteredDigits, seed: int, step: Callable[..., Tensor], steps: int, lr: float
) -> None:
    """Train the net of a mutator for so many steps."""
    optimizer = torch.optim.SGD(mutator.model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    fit(
        mutator.model,
        data.loader("train", 64),
        loss,
        optimizer,
        steps=steps,
        mutator=mutator,
        step=step,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        seed=seed,
    )


WAYS: dict[str, Way] = {
    "US-net, uniform widths": us_net,
    "US-net without distillation, uniform widths": partial(us_net, distill=False),
    "US-net, trained and used with one share in all layers": us_net_one_share,
    "AutoSlim": autoslim,
    "slimmable, batch norms for each width": slimmable,
}


def run(seeds: range = range(5), split: str = "test", ways: dict[str, Way] | None = None) -> dict[str, float]:
    """The means over seeds, for each way and budget."""
    torch.set_num_threads(1)
    data = ClutteredDigits()
    images, labels = data[split].tensors

    def accuracy(model: nn.Module) -> float:
        with evaluating(model), torch.inference_mode():
            return 100 * float((model(images).argmax(dim=1) == labels).float().mean())

    collected: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        collected.setdefault(name, []).append(value)

    for seed in seeds:
        whole = count(original(seed), data.example_inputs).macs
        for name, way in (WAYS if ways is None else ways).items():
            subnets = way(data, seed)
            for budget in BUDGETS:
                subnet = subnets(budget)
                note(f"{budget} MACs: {name}, share of MACs", count(subnet, data.example_inputs).macs / whole)
                note(f"{budget} MACs: {name}, before finetuning", accuracy(subnet))
                finetune_(subnet, subnet, data.loader("train", 64), loss, FINETUNE, seed=seed)
                note(f"{budget} MACs: {name}", accuracy(subnet))
        print(f"  seed {seed}:", {name: round(values[-1], 2) for name, values in collected.items()}, flush=True)
    return {name: float(np.mean(values)) for name, values in collected.items()}


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """What every way trains on."""
    return F.cross_entropy(model(batch[0]), batch[1])
