"""What every way to shrink a model is composed of."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.channels.widths import Widths
from mutorch.cost import Budget
from mutorch.importance import Importance, rank_
from mutorch.space import Architecture
from mutorch.training import recalibrate_
from mutorch.utils import ExampleInputs, evaluating

from .allocation import Allocation
from .batches import forward, to_device
from .finetune import Finetune, finetune_
from .passes import Passes
from .prices import Prices
from .progress import Progress


@dataclass(slots=True)
class Run:
    """One call of `shrink`: what the user gave, and what was measured so far.

    Attributes:
        original: as it came; it is the teacher.
        searchable: the model given, searchable in the widths given, within what the user lets change.
        scores: stage to what `evaluate` gave.
        passes: what was computed.
        stopped: why the budget is not met; empty where it is.
    """

    original: nn.Module
    data: Iterable[Any]
    inputs: ExampleInputs
    device: torch.device
    loss: Callable[[nn.Module, Any], Tensor] | None
    finetune: Finetune
    importance: Importance
    allocate: Allocation
    calibrate: int | None
    evaluate: Callable[[nn.Module], float] | None
    seed: int
    show: Progress
    searchable: Callable[[nn.Module, Sequence[Widths]], nn.Module]
    passes: Passes
    scores: dict[str, float] = field(default_factory=dict)
    stopped: str = ""

    def score(self, stage: str, model: nn.Module) -> None:
        """Let the user's function score a model."""
        if self.evaluate is not None:
            with evaluating(model):
                self.scores[stage] = float(self.evaluate(model))

    def widths(self, net: nn.Module, prices: Prices, bounds: Budget) -> Architecture:
        """Rank the channels of a searchable model, in place, and choose widths within the bounds."""
        with seeded(self.seed), self.passes.counting(net):
            ranks: Mapping[str, Tensor] = rank_(net, self.importance)
        return self.allocate(prices, bounds, ranks)

    def recalibrate_(self, model: nn.Module) -> bool:
        """Measure BatchNorm statistics again; whether there are any."""
        if not self.calibrate:
            return False
        with seeded(self.seed), self.passes.counting(model):
            found = recalibrate_(
                model,
                self.data,
                num_batches=self.calibrate,
                forward=lambda net, batch: forward(net, to_device(batch, self.device)),
            )
        return bool(found)

    def train_(
        self, model: nn.Module, settings: Finetune, stage: str, *, seed: int, constant_lr: float | None = None
    ) -> int:
        """Train a model with the original as its teacher; returns the number of steps."""
        if self.loss is None:
            return 0
        teachers = [self.original] if settings.distill else []
        with self.passes.counting(model, *teachers):
            return finetune_(
                model,
                self.original,
                self.data,
                self.loss,
                settings,
                constant_lr=constant_lr,
                seed=seed,
                on_step=self.shower(stage),
            )

    def shower(self, stage: str) -> Callable[[int, int, Tensor], None]:
        """Shows every tenth step."""

        def on_step(done: int, total: int, loss: Tensor) -> None:
            if done % 10 == 0 or done == total:
                self.show(stage, done, total, f"loss {float(loss):.3f}")

        return on_step


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What a loader shuffles with comes from the seed inside; the caller's random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
