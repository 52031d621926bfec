"""Training with fused filters (DCFF, Lin et al. 2021, arXiv 2107.06916), for `fit` or the user's own loop."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.mutators import DCFFChannelMutator, Mutator

from .steps import LossFunction, path_step


@dataclass(frozen=True, slots=True)
class FusionTemperature:
    """The temperature of fused filters over a training: from mixtures to single filters, most of the way at the beginning.

    Its inverse is a logistic curve of `k * stages * done` from `start` to `end`.

    Args:
        start, end: the inverse temperature at the beginning and at the end.
        k: how steep the curve is, for each stage.
        stages: how many stages the training has; its epochs in the paper, 1 for one curve over all of it whatever its length.

    Errors:
        ConfigError: `start` not positive, `end` not above it, or `k * stages` not positive.

    Example:
        >>> temperature = FusionTemperature(stages=10)
        >>> [float(f"{temperature(done):.3g}") for done in (0, 0.1, 0.5, 1)]
        [1.0, 0.000216, 0.000101, 0.0001]
    """

    start: float = 1.0
    end: float = 1e4
    k: float = 1.0
    stages: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.start < self.end < math.inf:
            raise ConfigError(f"inverse temperatures need 0 < start < end, got start={self.start!r}, end={self.end!r}")
        if not 0 < self.k * self.stages < math.inf:
            raise ConfigError(f"k and stages must be positive, got k={self.k!r}, stages={self.stages!r}")

    def __call__(self, done: float) -> float:
        """The temperature when a share `done` of the training is over; 0 and 1 stand for all before and after."""
        steepness = self.k * self.stages
        at = math.exp(-steepness * min(1.0, max(0.0, done)))
        least = math.exp(-steepness)
        # A / (1 + e^-kn) - A / 2 with A = 2 (end - start) (1 + e^-kN) / (1 - e^-kN), without its cancellation
        share = (1 - at) / (1 + at) * (1 + least) / (1 - least)
        return 1 / (self.start + (self.end - self.start) * share)


@dataclass(slots=True)
class FusedStep:
    """A step of a training with fused filters, for the argument `step` of `fit`; the widths are those of `architecture`.

    Args:
        architecture: the widths, for the mutator.
        steps: how many steps the training has.
        every: after how many steps likenesses are computed anew; those of an epoch in the paper.
        temperature: takes the share of the training that is over.

    Errors:
        ConfigError: fewer than one step.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 4, 1))
        >>> mutator = DCFFChannelMutator(parse_cfg={"type": "ChannelAnalyzer", "demo_input": (1, 3, 4, 4)})
        >>> mutator.prepare_from_supernet(model)
        >>> step = FusedStep({"0_(0, 8)_8": 0.5}, steps=10)
        >>> loss = step(model, mutator, lambda m: m(torch.ones(2, 3, 4, 4)).sum(), seed=0, step=0)
        >>> bool(model[0].state_dict(keep_vars=True)["weight"].grad.abs().sum((1, 2, 3)).all())  # of all eight filters
        True
    """

    architecture: dict[str, Any]
    steps: int
    every: int = 1
    temperature: FusionTemperature = FusionTemperature()
    _last: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.every < 1:
            raise ConfigError(f"steps and every must be at least 1, got steps={self.steps!r}, every={self.every!r}")

    def __call__(
        self,
        net: nn.Module,
        mutator: Mutator,
        loss_fn: LossFunction,
        *,
        seed: int,
        step: int,
        backward: Callable[[Tensor], Any] = torch.Tensor.backward,
    ) -> Tensor:
        """The gradients of all filters; arguments and result as in `single_path_step`.

        Errors:
            ConfigError: a mutator whose filters cannot be fused.
        """
        if step % self.every == 0 or self._last is None:
            self.fuse(mutator, step)
        self._last = step
        return path_step(net, mutator, loss_fn, [self.architecture], backward=backward)

    def fuse(self, mutator: Mutator, step: int) -> None:
        """Set the widths, and compute likenesses for a step; for `steps`, those that the fused net ends with."""
        if not isinstance(mutator, DCFFChannelMutator):
            raise ConfigError(f"filters are fused by a DCFFChannelMutator, got a {type(mutator).__name__}")
        mutator.set_choices(self.architecture)
        mutator.calc_information(self.temperature(step / self.steps))
