"""From the largest architecture down, always by the step that costs least: one walk for several budgets."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from mutorch.cost import Budget, Costs, CostTable
from mutorch.cost.budget import BudgetSpec
from mutorch.errors import ConfigError, InfeasibleBudgetError, SpaceError
from mutorch.mutators import Mutator
from mutorch.space import Architecture

from .evaluation import Evaluate
from .feasible import Feasible
from .history import Trial
from .ladders import ladders
from .objectives import as_score
from .search import search


@dataclass(frozen=True, slots=True)
class Slimmed:
    """What a walk met of one budget.

    Attributes:
        budget: as it was read, in plain units.
        architecture: the first one of the walk within it; the one before it was outside.
        score: what `evaluate` gave for it.
        costs: what it costs.
    """

    budget: Budget
    architecture: Architecture
    score: float
    costs: Costs


class GreedySlimming:
    """A strategy for `search`: greedy slimming, the search of AutoSlim (Yu and Huang 2019, arXiv 1903.11728).

    It begins with the largest architecture. All decisions whose choices are numbers (widths, depths, kernels) or sizes are
    tried one step smaller, each alone; the one that scores best is taken, and so on until the last budget is met. Among equal
    scores the cheaper one is taken, then the earlier decision. Other decisions keep what the largest architecture has.

    Its way leads through architectures that are outside of the budgets, so they are given here, and none to `search`; the
    search needs a table. It ends by itself; `num_trials` must be as large as `num_trials` here says.

    Args:
        feasible, seed: as every strategy has; nothing here is random.
        budgets: see `Budget`; in any order.

    Attributes:
        found: one for each budget, in their order; `None` where it was not met so far.
        num_trials: how many architectures are scored at most.

    Errors:
        ConfigError: no budgets, or one without an upper bound; no table; a search that has a budget itself.
        SpaceError: no decision has steps.
        InfeasibleBudgetError: one that the end of the walk does not meet, before anything is scored.

    Example:
        >>> import torch
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(4, 32), nn.Linear(32, 16), nn.Linear(16, 4)), torch.zeros(1, 4))
        >>> mutator = Mutator(net)
        >>> table = CostTable.from_model(mutator, torch.zeros(1, 4))
        >>> walk = GreedySlimming(Feasible(mutator.space, table), budgets=[{"macs": "50%"}])
        >>> while (architecture := walk.ask()) is not None:
        ...     walk.tell(Trial(0, architecture, score=architecture["0"]))  # only the first layer matters
        >>> walk.found[0].architecture
        {'0': 24, '1': 8}
    """

    def __init__(self, feasible: Feasible, seed: int = 0, *, budgets: Sequence[BudgetSpec | Budget]) -> None:
        if feasible.table is None:
            raise ConfigError("greedy slimming needs to know costs: give search example_inputs, or a table")
        if feasible.budget is not None:
            raise ConfigError(
                f"greedy slimming comes from outside of its budgets: give it budgets=[...], and search no budget, got "
                f"{feasible.budget}"
            )
        self._space, self._table = feasible.space, feasible.table
        self._budgets = _read(budgets, self._table)
        self._ladders = ladders(self._space)
        if not self._ladders:
            raise SpaceError(
                "no decision of the space has choices that are numbers or sizes, so none has a smaller step"
            )
        self._now = self._space.max
        self._round: list[Architecture] = [self._now]
        self._scores: dict[int, float] = {}
        self._asked = 0
        self.found: list[Slimmed | None] = [None] * len(self._budgets)
        steps = sum(len(ladder) - 1 for ladder in self._ladders.values())
        self.num_trials = 1 + steps * len(self._ladders)
        self._check_end()

    def ask(self) -> Architecture | None:
        if self._asked == len(self._round):
            return None
        self._asked += 1
        return self._round[self._asked - 1]

    def tell(self, trial: Trial) -> None:
        # By architecture: where several machines share the walk, each is told what others evaluated of the round.
        self._scores[self._round.index(trial.architecture)] = as_score(trial.score)
        if len(self._scores) < len(self._round):
            return
        metric = next(iter(self._budgets[0].bounds))
        best = min(range(len(self._round)), key=lambda i: (-self._scores[i], self._table(self._round[i])[metric], i))
        self._now = self._round[best]
        self._note(self._scores[best])
        self._scores, self._asked = {}, 0
        self._round = [] if all(self.found) else self._steps()
        if not self._round and not all(self.found):
            left = next(budget for budget, found in zip(self._budgets, self.found, strict=True) if found is None)
            raise InfeasibleBudgetError(
                f"greedy slimming ends at {self._now}, outside of {left}: constraints of the space forbid every step further"
            )

    def _note(self, score: float) -> None:
        """Write down which budgets are met for the first time."""
        costs = self._table(self._now)
        for number, budget in enumerate(self._budgets):
            if self.found[number] is None and _below(budget, costs):
                if not budget.allows(costs):
                    have = ", ".join(f"{metric} {costs[metric]:,.6g}" for metric in budget.bounds)
                    raise InfeasibleBudgetError(
                        f"a step of greedy slimming leads over {budget}, to {have}; give it only upper bounds, or finer widths"
                    )
                self.found[number] = Slimmed(budget, self._now, score, costs)

    def _steps(self) -> list[Architecture]:
        """What is one step smaller than the current architecture, and different from it."""
        smaller = []
        for name, ladder in self._ladders.items():
            place = ladder.index(self._now[name])
            if place == 0 or not self._space.is_active(name, self._now):
                continue
            step = {**self._now, name: ladder[place - 1]}
            if not self._space.broken(step):
                smaller.append(self._space.canonical(step))
        return smaller

    def _check_end(self) -> None:
        smallest = {**self._space.max, **{name: ladder[0] for name, ladder in self._ladders.items()}}
        if self._space.broken(smallest):
            return  # where constraints end the walk is only known there
        costs = self._table(self._space.canonical(smallest))
        for budget in self._budgets:
            if not _below(budget, costs):
                have = ", ".join(f"{metric} {costs[metric]:,.6g}" for metric in budget.bounds)
                raise InfeasibleBudgetError(f"greedy slimming ends at {have}, which is not within {budget}")


def greedy_slim(
    net: nn.Module,
    mutator: Mutator,
    table: CostTable,
    evaluate: Evaluate,
    budgets: Sequence[BudgetSpec | Budget],
    *,
    calibrate: Iterable[Any] | Literal[False] | None = None,
    objective: str | None = None,
    log: str | os.PathLike[str] | None = None,
    on_trial: Callable[[Trial, int], Any] | None = None,
) -> list[Slimmed]:
    """The best architectures for several budgets in one walk from the largest down; see `GreedySlimming`.

    Made for supernets that were trained over all widths, as AutoSlim's with `sandwich_step`: every candidate is scored with the
    supernet's weights. Scoring costs as many evaluations as there are steps, times decisions. With a log, the same line goes on
    where it was stopped.

    Args:
        table: what architectures cost; budgets as shares are of the largest.
        evaluate, calibrate, objective, log, on_trial: see `search`.

    Returns:
        One for each budget, in the order given.

    Errors:
        InfeasibleBudgetError: a budget that the walk cannot meet; before anything is evaluated, where no constraints forbid
            steps.
        ConfigError, SpaceError: see `GreedySlimming`.
        KeyboardInterrupt: Ctrl-C; the log has what was scored.

    Example:
        >>> import torch
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(4, 32), nn.Linear(32, 16), nn.Linear(16, 4)), torch.zeros(1, 4))
        >>> table = CostTable.from_model(Mutator(net), torch.zeros(1, 4))
        >>> found = greedy_slim(net, Mutator(net), table, lambda model: model[0].out_features, [{"macs": "70%"}, {"macs": "50%"}])
        >>> [one.architecture for one in found]
        [{'0': 32, '1': 8}, {'0': 24, '1': 8}]
    """
    walks: list[GreedySlimming] = []

    def greedy_slimming(feasible: Feasible, seed: int) -> GreedySlimming:
        walks.append(GreedySlimming(feasible, seed, budgets=budgets))
        return walks[-1]

    most = GreedySlimming(Feasible(mutator.space, table), budgets=budgets).num_trials
    history = search(
        net,
        mutator,
        evaluate,
        table=table,
        strategy=greedy_slimming,
        num_trials=most,
        objective=objective,
        calibrate=calibrate,
        log=log,
        on_trial=on_trial,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    return [found for found in walks[-1].found if found is not None]


def _below(budget: Budget, costs: Mapping[str, Any] | Costs) -> bool:
    return all(costs[metric] <= high for metric, (_, high) in budget.bounds.items())


def _read(budgets: Sequence[BudgetSpec | Budget], table: CostTable) -> list[Budget]:
    if isinstance(budgets, Mapping | Budget | str) or not budgets:
        raise ConfigError(
            f'budgets is a list of budgets, such as [{{"macs": "50%"}}, {{"macs": "25%"}}], got {budgets!r}'
        )
    read = [Budget.parse(budget, table) for budget in budgets]
    for budget, given in zip(read, budgets, strict=True):
        if not any(high < float("inf") for _, high in budget.bounds.values()):
            raise ConfigError(f"greedy slimming needs an upper bound in each budget, got {given!r}")
    return read
