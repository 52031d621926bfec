"""Channels that go while the model trains, the least important first."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.cost import Budget
from mutorch.errors import ConfigError, InfeasibleBudgetError
from mutorch.importance import MaskGradients
from mutorch.importance.group_fisher import (
    METRICS,
    Saving,
    check_saving,
    gradients_of_batch,
    inseparable,
    num_samples,
    samples_of,
)
from mutorch.importance.places import search_of
from mutorch.mutables import SequentialMutableChannel
from mutorch.mutators import Mutator
from mutorch.space import Architecture
from mutorch.subnet import export
from mutorch.utils import evaluating

from .batches import first_batch, to_device
from .finetune import finetune_
from .gradual import SCHEDULES, Schedule, check_schedule, partway
from .prices import Prices
from .run import Run, seeded


@dataclass(frozen=True, slots=True)
class OneByOne:
    """The loop of group Fisher pruning: the model trains, and every few steps the least important channels go.

    The gradients of training are the ranking: no pass is spent on it (Liu et al., arXiv 2108.00708). What a channel is
    worth is the squared gradient of its mask, summed since the last removal, over what it costs now; see `GroupFisher`.
    A removal is a step of `divisor` channels of one unit. `importance` and `allocation` have no say.

    Attributes:
        steps: training steps while channels go; those of `finetune` come afterwards.
        interval: steps between removals; each removes until the schedule is met.
        schedule: how the budget is approached; see `Gradual`.
        normalise: what a channel's cost is counted in: `"memory"` (activations, as published), `"macs"`, or `None`.
        lr: the learning rate, which stays; a tenth of that of `finetune` unless given.
    """

    steps: int = 500
    interval: int = 10
    schedule: Schedule = "linear"
    normalise: Saving | None = "memory"
    lr: float | None = None

    def __post_init__(self) -> None:
        check_schedule("one by one", self.schedule, self.lr, steps=(self.steps, 1), interval=(self.interval, 1))
        check_saving(self.normalise)
        if self.interval > self.steps:
            raise ConfigError(f"one by one: interval {self.interval} is longer than the {self.steps} steps")

    def share(self, step: int) -> float:
        """How much of the cut is due after a step."""
        return SCHEDULES[self.schedule](min(1.0, step // self.interval / (self.steps // self.interval)))


def one_by_one(
    run: Run, net: nn.Module, prices: Prices, bounds: Budget, settings: OneByOne
) -> tuple[nn.Module, Architecture, int]:
    """The model after all removals, not yet recalibrated, its architecture, and how many steps it was trained.

    `net` is trained, ordered and narrowed in place.

    Errors:
        ConfigError: no loss, or channels whose gradients a batch does not tell sample by sample; they are named.
    """
    if run.loss is None:
        raise ConfigError("channels that go while the model trains need loss: a criterion, or a function")
    loss, size = run.loss, 1
    gradients = MaskGradients(net)
    _check(run, net, gradients)
    removal = _Removal(net, prices, settings)

    def loss_of_batch(model: nn.Module, batch: Any) -> Tensor:
        nonlocal size
        size = num_samples(batch)
        return loss(model, batch)

    def on_step(done: int, total: int, loss: Tensor) -> None:
        removal.add({name: rows * size for name, rows in gradients.take(size).items()})
        if done % settings.interval == 0:
            removal.go_on(partway(prices, bounds, settings.share(done)))
        show(done, total, loss)

    show = run.shower("pruning while training")
    lr = run.finetune.lr / 10 if settings.lr is None else settings.lr
    teachers = [run.original] if run.finetune.distill else []
    with gradients.watching(), run.passes.counting(net, *teachers):
        finetune_(
            net,
            run.original,
            run.data,
            loss_of_batch,
            replace(run.finetune, steps=settings.steps, epochs=None),
            constant_lr=lr,
            seed=run.seed,
            on_step=on_step,
        )
    prices.check(bounds, removal.now)
    return export(net, {**Mutator(net).space.default, **removal.now}), removal.now, settings.steps


def _check(run: Run, net: nn.Module, gradients: MaskGradients) -> None:
    """Whether one backward of a batch tells the gradients of its samples."""
    if run.loss is None:
        return
    with seeded(run.seed):
        batch = to_device(first_batch(run.data), run.device)
    size = num_samples(batch)
    with run.passes.counting(net), evaluating(net), torch.enable_grad(), gradients.watching():
        found = gradients_of_batch(net, gradients, run.loss, batch, size)
        bad = inseparable(net, found, run.loss, next(samples_of(batch, size)))
    if bad:
        raise ConfigError(
            f"the gradients of a batch do not tell those of its samples for {', '.join(map(repr, bad[:3]))}"
            f"{f' and {len(bad) - 3} more' if len(bad) > 3 else ''}: not only convolutions and linear layers read these "
            "channels, or the loss is no mean over samples; freeze them, or take Gradual with GroupFisher as importance"
        )


class _Removal:
    """Removes the least important channels of a searchable model, in place.

    Attributes:
        now: unit to how many of its channels are left.
    """

    def __init__(self, net: nn.Module, prices: Prices, settings: OneByOne) -> None:
        self._units = {unit.name: unit for unit in search_of(net).units}
        self._prices = prices
        self._metric = None if settings.normalise is None else METRICS[settings.normalise]
        self.now: Architecture = dict(prices.whole)
        self._order = {name: list(range(unit.num_channels)) for name, unit in self._units.items()}
        self._forget()

    def _forget(self) -> None:
        self._sums = {name: torch.zeros(unit.num_channels, dtype=torch.float64) for name, unit in self._units.items()}

    def add(self, gradients: Mapping[str, Tensor]) -> None:
        """Note what a step's gradients say."""
        for name, rows in gradients.items():
            self._sums[name] += rows.double().pow(2).sum(dim=0).cpu()

    def go_on(self, bounds: Budget) -> None:
        """Remove until the bounds are met; what was noted is forgotten if anything was removed."""
        removed = False
        while not self._prices.fits(bounds, self.now):
            steps = [found for name in self.now if (found := self._step(name)) is not None]
            if not steps:
                raise InfeasibleBudgetError(f"nothing is left to remove, and {bounds} is not met")
            self._remove(*min(steps)[1:])
            removed = True
        if removed:
            self._forget()

    def _step(self, name: str) -> tuple[float, str, int] | None:
        """What a unit's next removal costs in importance, for each unit of what it saves, and its width then."""
        narrower = [choice for choice in self._prices.widths[name] if choice < self.now[name]]
        if not narrower:
            return None
        width = narrower[-1]
        lost = float(self._sums[name][self._active(name)].sort().values[: self.now[name] - width].sum())
        if self._metric is None:
            return lost / (self.now[name] - width), name, width
        saved = self._prices(self.now)[self._metric] - self._prices({**self.now, name: width})[self._metric]
        return (lost / saved if saved > 0 else math.inf), name, width

    def _active(self, name: str) -> list[int]:
        return self._order[name][: self.now[name]]

    def _remove(self, name: str, width: int) -> None:
        active = self._active(name)
        kept_longest = [active[i] for i in self._sums[name][active].argsort(descending=True, stable=True).tolist()]
        self._order[name] = kept_longest + self._order[name][len(active) :]
        unit = self._units[name]
        channel = unit.mutable_channel
        if not isinstance(channel, SequentialMutableChannel):
            raise ConfigError(f"unit {name!r} has a {type(channel).__name__}, whose channels go in no order")
        channel.set_order(self._order[name])
        unit.assign(width)
        self.now[name] = width
