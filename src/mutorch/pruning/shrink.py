"""A smaller model in one call."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import nn

from mutorch.channels import searchable, widths
from mutorch.channels.selection import Selector
from mutorch.channels.widths import Widths
from mutorch.cost import Budget, ExampleInputs
from mutorch.errors import ConfigError, nearest
from mutorch.importance import L2, Importance
from mutorch.importance.places import search_of
from mutorch.mutators import Mutator
from mutorch.space import Architecture
from mutorch.subnet import Comparison, compare, export

from .allocation import ALLOCATIONS, Allocation, by_ratio
from .batches import Loss, device_of, first_batch, loss_of, one_sample, to_device
from .finetune import Finetune
from .gradual import Gradual, in_rounds
from .one_by_one import OneByOne, one_by_one
from .passes import Passes, num_rows
from .prices import Prices
from .progress import Progress, showing
from .run import Run, seeded

SHARES = tuple(count / 1024 for count in range(1, 1025))
"""Ratios so fine that every multiple of the divisor is a width."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What `shrink` made; `print` it for the table of before and after.

    Attributes:
        model: the smaller model, plain.
        comparison: costs and measured latency of the original and the smaller model.
        budget: the bounds that were kept, unless it `stopped`.
        architecture: unit to the number of its channels that are left.
        net: the searchable model, ranked. In one cut it has the original's weights, and `export(net, architecture)` is
            what `model` was before it was recalibrated and finetuned; `OneByOne` trained it, and the same holds; after
            `Gradual` it is as in the first round.
        scores: what `evaluate` gave: for the `original`, after each `round`, and as it was `pruned`, `recalibrated` and
            `finetuned`.
        steps: how many steps it was trained.
        passes: what all of it computed, in forwards and backwards of a batch: training, with a third for each forward of
            the teacher, ranking, and a third for each batch of recalibration. Whatever `evaluate` runs is not in it.
        stopped: why the budget is not met, where `Gradual(min_score=...)` ended it; else empty.
    """

    model: nn.Module
    comparison: Comparison
    budget: str
    architecture: Architecture
    net: nn.Module
    scores: Mapping[str, float]
    steps: int
    passes: float
    stopped: str = ""

    def __str__(self) -> str:
        table = [line for line in str(self.comparison).splitlines() if not line.startswith("outputs differ")]
        header = table[0].replace(" first", "before").replace("second", " after")
        lines = [f"budget: {self.budget}", header, *table[1:]]
        if self.scores:
            lines.append("score: " + ", ".join(f"{name} {score:.4g}" for name, score in self.scores.items()))
        lines += [f"stopped: {self.stopped}"] if self.stopped else []
        lines.append(f"trained for {self.steps} steps; {self.passes:.0f} passes in all")
        return "\n".join(lines)


def shrink(
    model: nn.Module,
    budget: Mapping[str, Any],
    data: Iterable[Any],
    loss: Loss | None = None,
    *,
    example_inputs: ExampleInputs | None = None,
    importance: Importance | None = None,
    allocation: Literal["uniform", "global", "absolute"] | Mapping[str, float] | Allocation = "uniform",
    gradual: Gradual | OneByOne | None = None,
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
            go, wherever they are, as a share of the mean of their unit, `"absolute"` as they are; a dict says what share
            of their channels units keep, by glob (`{"layer1.*": 0.5}`; the others meet the budget, which may be empty);
            or a function, see `mutorch.pruning.Allocation`.
        gradual: cut and train in turns instead of once: `Gradual(rounds=5, steps_between=100)`, or `OneByOne(steps=500)`,
            the loop of group Fisher pruning. `finetune` comes afterwards.
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
        >>> import torch
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
    if gradual is not None and objective is None:
        raise ConfigError("gradual trains, and needs loss: a criterion, or a function of the model and a batch")
    if gradual is not None and not isinstance(gradual, Gradual | OneByOne):
        raise ConfigError(f"gradual is a Gradual or a OneByOne, got {gradual!r}")
    with seeded(seed):
        batch = first_batch(data)
    device = device_of(model)
    inputs = to_device(one_sample(batch) if example_inputs is None else example_inputs, device)
    with ExitStack() as stack:
        run = Run(
            original=model,
            data=data,
            inputs=inputs,
            device=device,
            loss=objective,
            finetune=finetune or Finetune(),
            importance=importance or L2(reads=True, scales=True, per_tensor=True),
            allocate=allocate,
            calibrate=calibrate,
            evaluate=evaluate,
            seed=seed,
            show=stack.enter_context(showing(progress)),
            searchable=lambda one, rules: searchable(one, inputs, rules=rules, only=only, freeze=freeze, tie=tie),
            passes=Passes(num_rows(batch)),
        )
        run.show("ranking channels", 0, 1, "")
        run.score("original", model)
        net = run.searchable(model, [widths(ratios=SHARES, divisor=divisor)] if rules is None else rules)
        prices = Prices(Mutator(net), inputs, min_ratio=min_ratio)
        bounds = prices.budget(budget)
        small, architecture, steps = _way(gradual, net)(run, net, prices, bounds)
        run.score("pruned", small)
        if run.recalibrate_(small):
            run.score("recalibrated", small)
        finetuned = run.train_(small, run.finetune, "finetuning", seed=seed)
        if finetuned:
            run.score("finetuned", small)
    small.train(model.training)
    whole = {**Mutator(net).space.default, **architecture}
    comparison = compare(model, small, inputs)
    return Shrunk(
        model=small,
        comparison=comparison,
        budget=str(bounds),
        architecture=whole,
        net=net,
        scores=run.scores,
        steps=steps + finetuned,
        passes=run.passes.total,
        stopped=run.stopped,
    )


Way = Callable[[Run, nn.Module, Prices, Budget], tuple[nn.Module, Architecture, int]]
"""How the model becomes smaller: gives it, its architecture, and the steps that it was trained meanwhile."""


def _way(gradual: Gradual | OneByOne | None, net: nn.Module) -> Way:
    if gradual is None:
        return _at_once
    units = {unit.name for unit in search_of(net).units}
    others = [decision.name for decision in Mutator(net).space if decision.name not in units]
    if others:
        raise ConfigError(
            f"gradual cuts channels only, and {others[0]!r} decides something else; export the model first"
        )
    if isinstance(gradual, Gradual):
        return partial(in_rounds, settings=gradual)
    return partial(one_by_one, settings=gradual)


def _at_once(run: Run, net: nn.Module, prices: Prices, bounds: Budget) -> tuple[nn.Module, Architecture, int]:
    architecture = run.widths(net, prices, bounds)
    run.show("ranking channels", 1, 1, f"{len(architecture)} units")
    mutator = Mutator(net)
    return export(net, {**mutator.space.default, **architecture}, mutator=mutator), architecture, 0


def _allocation(allocation: str | Mapping[str, float] | Allocation) -> Allocation:
    if callable(allocation):
        return allocation
    if isinstance(allocation, Mapping):
        return by_ratio(allocation)
    if allocation not in ALLOCATIONS:
        raise ConfigError(f"no allocation {allocation!r}; {nearest(allocation, ALLOCATIONS)}")
    return ALLOCATIONS[allocation]
