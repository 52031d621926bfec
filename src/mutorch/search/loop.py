"""The loop of every search: ask, evaluate, tell, write down."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mutorch.cost import Budget, Costs, CostTable
from mutorch.errors import BudgetError, ConfigError, ResumeError
from mutorch.space import Architecture

from .evaluation import Outcome
from .history import History, Trial
from .log import Log
from .objectives import SCORE, Objectives
from .pools import Pool
from .strategies import Strategy

OnTrial = Callable[[Trial, int], Any]


@dataclass(frozen=True, slots=True)
class Judge:
    """Makes trials of outcomes.

    Attributes:
        objectives: what the results are read by.
        table, bounds: the costs, and what they must keep to.
        on_error: whether an error of an evaluation ends the search, or is written down as a trial that ranks last.
    """

    objectives: Objectives
    table: CostTable | None = None
    bounds: Budget | None = None
    on_error: Literal["raise", "record"] = "raise"

    def costs(self, architecture: Architecture) -> Costs | None:
        """What an architecture costs; a strategy that left the budget is told so before anything is evaluated.

        Errors:
            BudgetError: outside of the budget.
        """
        costs = None if self.table is None else self.table(architecture)
        if costs is not None and self.bounds is not None and not self.bounds.allows(costs):
            raise BudgetError(
                f"the strategy asked for {architecture}, which is outside of {self.bounds}; take what feasible.accept or "
                "feasible.draw gives"
            )
        return costs

    def trial(self, outcome: Outcome, architecture: Architecture, costs: Costs | None) -> Trial:
        """The trial of an outcome.

        Errors:
            Exception: that of the evaluation, unless errors are recorded.
            ConfigError: a result without an objective.
        """
        seconds = round(outcome.seconds, 6)
        if outcome.error is not None:
            if self.on_error == "raise":
                raise outcome.error
            text = f"{type(outcome.error).__name__}: {outcome.error}"
            values = (-math.inf,) * max(len(self.objectives.names), 1)
            return Trial(outcome.index, architecture, -math.inf, {}, costs, seconds, values, error=text)
        try:
            read = self.objectives.read(outcome.result, costs)
        except ConfigError as error:
            error.add_note(f"while reading what came of trial {outcome.index}, {architecture}")
            return self.trial(replace(outcome, result=None, error=error), architecture, costs)
        return Trial(
            outcome.index,
            architecture,
            read.values[0],
            read.metrics,
            costs,
            seconds,
            read.values,
            read.violation,
        )

    def same_aim(self, trial: Trial, aim: str | None) -> str | None:
        """What is maximised where no objective is named: the first entry of the first result.

        Errors:
            ConfigError: a later result that begins with another entry.
        """
        if self.objectives.names or trial.error is not None:
            return aim
        name = next(iter(trial.metrics), SCORE)
        if aim is not None and name != aim:
            raise ConfigError(
                f"what evaluate returned for trial {trial.index} begins with {name!r}, and before it was {aim!r}: name what to maximise "
                f"by objective={aim!r}"
            )
        return name


def ask_and_tell(
    chooser: Strategy,
    pool: Pool,
    log: Log,
    judge: Judge,
    trials: list[Trial],
    *,
    num_trials: int,
    ahead: int,
    on_trial: Sequence[OnTrial],
    is_over: Callable[[], bool] = lambda: False,
) -> bool:
    """Append all trials, in order; whether the strategy had no more.

    A trial is asked for when all but the `ahead - 1` before it were told, and told in the order of asking, whatever the order in
    which results come: what is evaluated depends on strategy and results alone, not on how many work, or how fast. What the log
    has already is told in its turn, not evaluated. When `is_over`, no trial is begun that the log does not reach to.
    """
    asked: list[Architecture] = []
    costs: dict[int, Costs | None] = {}
    known = {trial.index: trial for trial in log.trials if trial.index < num_trials}
    reached = max(known, default=-1)
    fresh: set[int] = set()
    aim: str | None = None
    while len(trials) < num_trials:
        is_last = False
        while len(asked) < min(num_trials, len(trials) + ahead) and (len(asked) <= reached or not is_over()):
            architecture = chooser.ask()
            if architecture is None:
                is_last = True
                break
            index = len(asked)
            asked.append(architecture)
            if index in known:
                _check_replay(known[index], architecture)
            else:
                costs[index] = judge.costs(architecture)
                pool.submit(index, architecture)
        turn = len(trials)
        if turn == len(asked):
            return is_last
        while turn not in known:
            outcome = pool.result()
            number = outcome.index
            known[number] = judge.trial(outcome, asked[number], costs.pop(number))
            log.append(known[number])
            fresh.add(number)
        trial = known.pop(turn)
        aim = judge.same_aim(trial, aim)
        chooser.tell(trial)
        trials.append(trial)
        if turn in fresh:
            for listener in on_trial:
                listener(trial, num_trials)
    return False


def finished(
    trials: list[Trial], exhausted: bool, interrupted: bool, objectives: Objectives, run: dict[str, Any]
) -> History:
    """The history of a search, with a warning where nothing in it can be trusted to be best."""
    if trials and all(trial.score == -math.inf for trial in trials):
        why = "errors" if all(trial.error for trial in trials) else "no numbers"
        warnings.warn(f"all {len(trials)} trials gave {why}: the best of them is only the first", stacklevel=4)
    elif trials and not any(trial.is_feasible for trial in trials):
        warnings.warn(
            f"none of {len(trials)} trials keeps to the constraints {dict(objectives.constraints)}: the best is the one that "
            "misses them least",
            stacklevel=4,
        )
    return History(trials, interrupted, exhausted, objectives.names, run)


def _check_replay(past: Trial, asked: Architecture) -> None:
    if asked != past.architecture:
        raise ResumeError(
            f"trial {past.index} of the log is {past.architecture}, and the strategy now asks for {asked}: it, or its "
            "options, changed; give another log to start anew"
        )
