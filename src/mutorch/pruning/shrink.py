"""A smaller model in one call."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mutorch.channels import searchable, widths
from mutorch.channels.selection import Selector
from mutorch.channels.widths import Widths
from mutorch.cost import ExampleInputs
from mutorch.errors import ConfigError, nearest
from mutorch.importance import L2, Importance, rank_
from mutorch.mutators import Mutator
from mutorch.space import Architecture
from mutorch.subnet import Comparison, compare, export
from mutorch.training import recalibrate_
from mutorch.utils import evaluating

from .allocation import ALLOCATIONS, Allocation
from .batches import Loss, device_of, first_batch, forward, loss_of, one_sample, to_device
from .finetune import Finetune, finetune_
from .prices import Prices
from .progress import Progress, showing

SHARES = tuple(count / 1024 for count in range(1, 1025))
"""Ratios so fine that every multiple of the divisor is a width."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What `shrink` made; `print` it for the table of before and after.

    Attributes:
        model: the smaller model, plain.
        comparison: costs and measured latency of the original and the smaller model.
        budget: the bounds that were kept.
        architecture: unit to the number of its channels that are left.
        net: the searchable model, ranked, with the original's weights; `export(net, architecture)` is what `model` was
            before it was recalibrated and finetuned.
        scores: what `evaluate` gave: for the `original`, and as it was `pruned`, `recalibrated` and `finetuned`.
        steps: how many steps it was finetuned.
    """

    model: nn.Module
    comparison: Comparison
    budget: str
    architecture: Architecture
    net: nn.Module
    scores: Mapping[str, float]
    steps: int

    def __str__(self) -> str:
        table = [line for line in str(self.comparison).splitlines() if not line.startswith("outputs differ")]
        header = table[0].replace(" first", "before").replace("second", " after")
        lines = [f"budget: {self.budget}", header, *table[1:]]
        if self.scores:
            lines.append("score: " + ", ".join(f"{name} {score:.4g}" for name, score in self.scores.items()))
        return "\n".join(lines)


def shrink(
    model: nn.Module,
    budget: Mapping[str, Any],
    data: Iterable[Any],
    loss: Loss | None = None,
    *,
    example_inputs: ExampleInputs | None = None,
    importance: Importance | None = None,
    allocation: Literal["uniform", "global"] | Allocation = "uniform",
    rules: Sequence[Widths] | None = None,
    only: Iterable[Selector] | Selector = (),
    freeze: Iterable[Selector] | Selector = (),
    tie: Sequence[Sequence[str]] = (),
    divisor: int = 8,
    min_ratio: float = 0.1,
    finetune: Finetune | None = None,
    calibrate: int | None = 64,
    evaluate: Callable[[nn.Module], float] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Shrunk:
    """A smaller plain model that does what `model` does: rank channels, cut to the budget, recalibrate, finetune.

    `model` stays as it is. Every number of channels that remains is a multiple of `divisor` where the original's is, and
    the budget is missed by less than one such step.

    Args:
        budget: upper bounds such as `{"macs": "50%"}` or `{"params": "2M", "size_mb": 10}`; see `mutorch.Budget`.
        data: batches to recalibrate and finetune with, a `DataLoader` or a list: inputs, tuples that begin with inputs
            and targets, or dicts of keyword arguments.
        loss: a criterion (`nn.CrossEntropyLoss()`), or a function of the model and a batch; without it nothing is
            finetuned.
        example_inputs: what the costs are counted on; the first sample of the first batch unless given.
        importance: a ranking from `mutorch.importance`, or a function of the searchable model that gives one score a
            channel for each unit; the norm of all weights that make, scale and read a channel unless given.
        allocation: `"uniform"` cuts all units by one share; `"global"` lets the least important channels of the model
            go, wherever they are; or a function, see `mutorch.pruning.Allocation`.
        rules: widths that units may have, instead of all multiples of `divisor`.
        only, freeze, tie: which parts may shrink; see `searchable`.
        divisor: channels stay multiples of it.
        min_ratio: the smallest share of its channels that a unit keeps.
        finetune: how to train the smaller model; two epochs with the original as its teacher unless given.
        calibrate: how many batches BatchNorm statistics are measured on again; `None` or 0 leaves them.
        evaluate: takes a model and gives its score, measured after every stage. Higher or lower may be better.
        seed: decides everything that is random.
        progress: called with the stage, how much of it is done, how much there is, and a note; a progress bar on
            terminals unless given.

    Errors:
        InfeasibleBudgetError: the budget is below the narrowest model; says what is reachable.
        EmptySpaceError: nothing of the model can be cut.
        ConfigError: data that cannot be read twice, or options that do not fit together.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3))
        >>> batches = [(torch.randn(16, 8), torch.randint(3, (16,))) for _ in range(4)]
        >>> small = shrink(model, {"macs": "50%"}, batches, nn.CrossEntropyLoss())
        >>> small.architecture, small.model[0]
        ({'0': 32}, Linear(in_features=8, out_features=32, bias=True))
    """
    allocate = _allocation(allocation)
    objective = None if loss is None else loss_of(loss)
    if finetune is not None and finetune.num_steps(data) and objective is None:
        raise ConfigError("finetune needs loss: a criterion, or a function of the model and a batch")
    with _seeded(seed):
        batch = first_batch(data)
    device = device_of(model)
    inputs = to_device(one_sample(batch) if example_inputs is None else example_inputs, device)
    if rules is None:
        rules = [widths(ratios=SHARES, divisor=divisor)]
    scores: dict[str, float] = {}

    def score(stage: str, scored: nn.Module) -> None:
        if evaluate is not None:
            with evaluating(scored):
                scores[stage] = float(evaluate(scored))

    with ExitStack() as stack:
        show = stack.enter_context(showing(progress))
        show("ranking channels", 0, 1, "")
        score("original", model)
        net = searchable(model, inputs, rules=rules, only=only, freeze=freeze, tie=tie)
        mutator = Mutator(net)
        prices = Prices(mutator, inputs, min_ratio=min_ratio)
        bounds = prices.budget(budget)
        with _seeded(seed):
            ranks = rank_(net, importance or L2(reads=True, scales=True, per_tensor=True))
        architecture = {**mutator.space.default, **allocate(prices, bounds, ranks)}
        show("ranking channels", 1, 1, f"{len(ranks)} units")
        small = export(net, architecture, mutator=mutator)
        score("pruned", small)
        with _seeded(seed):
            recalibrated = calibrate and _recalibrate(small, data, calibrate, device)
        if recalibrated:
            score("recalibrated", small)
        steps = 0
        if objective is not None:
            stage = "finetuning"
            settings = finetune or Finetune()
            steps = finetune_(small, model, data, objective, settings, seed=seed, on_step=_shower(show, stage))
            if steps:
                score("finetuned", small)
    small.train(model.training)
    return Shrunk(small, compare(model, small, inputs), str(bounds), architecture, net, scores, steps)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """What a loader shuffles with comes from the seed inside; the caller's random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _allocation(allocation: str | Allocation) -> Allocation:
    if callable(allocation):
        return allocation
    if allocation not in ALLOCATIONS:
        raise ConfigError(f"no allocation {allocation!r}; {nearest(allocation, ALLOCATIONS)}")
    return ALLOCATIONS[allocation]


def _recalibrate(model: nn.Module, data: Iterable[Any], num_batches: int, device: torch.device) -> int:
    return recalibrate_(
        model, data, num_batches=num_batches, forward=lambda net, batch: forward(net, to_device(batch, device))
    )


def _shower(show: Progress, stage: str) -> Callable[[int, int, Tensor], None]:
    def on_step(done: int, total: int, loss: Tensor) -> None:
        if done % 10 == 0 or done == total:
            show(stage, done, total, f"loss {float(loss):.3f}")

    return on_step
