"""Pruned little by little: cut, train, rank again, cut further."""

import glob
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import nn

from mutorch.channels.widths import widths
from mutorch.cost import Budget
from mutorch.errors import ConfigError, InfeasibleBudgetError, nearest
from mutorch.mutators import Mutator
from mutorch.space import Architecture
from mutorch.subnet import export

from .prices import Prices
from .run import Run

Schedule = Literal["linear", "cubic"]
SCHEDULES: dict[Schedule, Callable[[float], float]] = {
    "linear": lambda share: share,
    "cubic": lambda share: 1 - (1 - share) ** 3,
}
"""From the share of the time that went by to the share of the cut that is made then."""


@dataclass(frozen=True, slots=True)
class Gradual:
    """Several rounds instead of one cut; between them the model is trained, and what is left of it is ranked again.

    Attributes:
        rounds: how many cuts.
        steps_between: training steps between two cuts, with the settings of `finetune`, whose own steps come at the end.
        schedule: `"linear"` cuts as much in every round; `"cubic"` most at first, when there is most to spare (Zhu and
            Gupta, arXiv 1710.01878).
        lr: the learning rate between cuts, which stays; that of `finetune` unless given.
        min_score: where `evaluate` gives less after the training that follows a cut, that cut is undone and no other made:
            the result is then above the budget, and says so. Needs `evaluate`, for which higher is better.

    Example:
        >>> [round(share, 3) for share in Gradual(rounds=4, schedule="cubic").shares]
        [0.578, 0.875, 0.984, 1.0]
    """

    rounds: int = 5
    steps_between: int = 100
    schedule: Schedule = "cubic"
    lr: float | None = None
    min_score: float | None = None

    def __post_init__(self) -> None:
        check_schedule(
            "gradual", self.schedule, self.lr, rounds=(self.rounds, 1), steps_between=(self.steps_between, 0)
        )

    @property
    def shares(self) -> list[float]:
        """After each round, how much of the cut is made."""
        return [SCHEDULES[self.schedule](done / self.rounds) for done in range(1, self.rounds + 1)]


def check_schedule(what: str, schedule: object, lr: float | None, **counts: tuple[int, int]) -> None:
    """Refuse what makes no schedule; `counts` are whole numbers with the least that each may be."""
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{what}: {name} must be a whole number of at least {least}, got {value!r}")
    if schedule not in get_args(Schedule):
        raise ConfigError(f"{what}: no schedule {schedule!r}; {nearest(schedule, get_args(Schedule))}")
    if lr is not None and not lr >= 0:
        raise ConfigError(f"{what}: lr must be at least 0, got {lr!r}")


def partway(prices: Prices, bounds: Budget, share: float) -> Budget:
    """Upper bounds so far on the way from the whole model to `bounds`; at the end, the bounds."""
    if share >= 1:
        return bounds
    whole = prices({})
    at = {metric: whole[metric] - share * max(whole[metric] - high, 0) for metric, (_, high) in bounds.bounds.items()}
    return Budget({metric: (float("-inf"), high) for metric, high in at.items()})


def in_rounds(
    run: Run, net: nn.Module, prices: Prices, bounds: Budget, settings: Gradual
) -> tuple[nn.Module, Architecture, int]:
    """The model after all cuts, not yet recalibrated, its architecture, and how many steps it was trained between them.

    Each round makes what is left searchable anew, so that any ranking sees a model that is whole.

    Errors:
        ConfigError: `min_score` without `evaluate`.
        InfeasibleBudgetError: the first cut leaves less than `min_score`.
    """
    if settings.min_score is not None and run.evaluate is None:
        raise ConfigError("gradual: min_score needs evaluate, a function that gives a model's score")
    between = replace(run.finetune, steps=settings.steps_between, epochs=None)
    lr = run.finetune.lr if settings.lr is None else settings.lr
    left: Architecture = {name: choices[-1] for name, choices in prices.widths.items()}
    small, trained = run.original, 0
    for number, share in enumerate(settings.shares, start=1):
        before = small, dict(left)
        now = partway(prices, bounds, share)
        if number == 1 or any(prices.widths[name][0] < width for name, width in left.items()):
            small = _cut(run, net if number == 1 else None, small, prices, now, share, left)
        run.show("pruning in rounds", number, settings.rounds, f"{prices(left).macs:,} macs")
        if number < settings.rounds and settings.steps_between:
            stage = f"training after round {number}"
            trained += run.train_(small, between, stage, seed=run.seed + number, constant_lr=lr)
            run.score(f"round {number}", small)
            if settings.min_score is not None and not run.scores[f"round {number}"] >= settings.min_score:
                small, left = _undone(run, number, settings, *before)
                break
    else:
        prices.check(bounds, left)
    return _of_original(net, small, left), left, trained


def _undone(
    run: Run, number: int, settings: Gradual, small: nn.Module, left: Architecture
) -> tuple[nn.Module, Architecture]:
    """What was before a round that left too little, and a note of it."""
    low = f"round {number} of {settings.rounds} scored {run.scores[f'round {number}']:.4g}"
    if number == 1:
        raise InfeasibleBudgetError(f"{low}, below min_score {settings.min_score:.4g}; give more rounds, or more steps")
    run.stopped = f"{low}, below {settings.min_score:.4g}, and was undone: the budget is not met"
    return small, left


def _cut(
    run: Run, net: nn.Module | None, small: nn.Module, prices: Prices, now: Budget, share: float, left: Architecture
) -> nn.Module:
    """A round: `left` is narrowed in place, and the smaller model returned."""
    here = prices
    if net is None:
        choices = {name: [c for c in prices.widths[name] if c <= left[name]] for name in left}
        rules = [widths(glob.escape(name), counts=counts, divisor=1) for name, counts in choices.items() if counts[1:]]
        net = run.searchable(small, rules)
        here = Prices(Mutator(net), run.inputs)
    mutator = Mutator(net)
    found = run.widths(net, here.towards(prices, share), now)
    left |= found
    return export(net, {**mutator.space.default, **found}, mutator=mutator)


def _of_original(net: nn.Module, small: nn.Module, left: Architecture) -> nn.Module:
    """The same model as a subnet of the original, which a file of it is loaded into."""
    plain = export(net, {**Mutator(net).space.default, **left})
    plain.load_state_dict(small.state_dict())
    return plain
