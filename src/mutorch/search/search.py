"""Search a supernet under a budget."""

import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutorch.cost import Budget, Costs, CostTable, ExampleInputs
from mutorch.cost.budget import BudgetSpec
from mutorch.errors import BudgetError, ConfigError, ResumeError, nearest
from mutorch.mutators import Mutator
from mutorch.space import Architecture
from mutorch.subnet.export import export  # by its file: mypy takes the name of the package for the file

from .feasible import Feasible
from .history import History, Trial, as_score
from .log import Log
from .strategies import Strategy, StrategyFactory, make_strategy

Evaluate = Callable[[nn.Module], float | Mapping[str, float]]
"""Takes a plain model in evaluation mode, returns what to maximise: a number, or a dict of them."""


def search(
    net: nn.Module,
    mutator: Mutator,
    evaluate: Evaluate,
    *,
    budget: BudgetSpec | Budget | None = None,
    example_inputs: ExampleInputs | None = None,
    table: CostTable | None = None,
    strategy: str | StrategyFactory = "evolution",
    num_trials: int = 100,
    seed: int = 0,
    objective: str | None = None,
    calibrate: Iterable[Any] | Literal[False] | None = None,
    log: str | os.PathLike[str] | None = None,
    resume: Literal["auto", "never", "must"] = "auto",
    on_trial: Callable[[Trial, int], Any] | None = None,
) -> History:
    """The best subnets of a trained supernet within a budget. The supernet is left as it is.

    Each candidate is exported, its BatchNorm statistics are recalibrated, and `evaluate` scores it. No architecture is
    evaluated twice. Ctrl-C ends the search and returns what was found. With a log, calling the same line again goes on
    where it stopped, also after a crash, and ends with the same result; a larger `num_trials` goes on further.

    Args:
        evaluate: see `Evaluate`. A result that is not a number ranks last.
        budget: see `Budget`; needs `example_inputs` or `table`.
        example_inputs: what the costs are counted on; a batch of one for costs per sample.
        table: the costs, where they are counted already.
        strategy: `"evolution"`, `"random"`, or a function of (`Feasible`, seed).
        num_trials: how many architectures to evaluate, those in the log included.
        seed: decides, with the scores, everything that is random.
        objective: which entry to maximise where `evaluate` returns a dict; the first unless given.
        calibrate: batches to recalibrate with (inputs, or tuples that begin with them), a list or another iterable that
            can be read again; `False` to score with the supernet's statistics knowingly.
        log: a `.jsonl` file.
        resume: whether a log that exists is continued: `"auto"`, or an error if it does (`"never"`) or does not
            (`"must"`).
        on_trial: called after each new trial with it and `num_trials`.

    Errors:
        BudgetError, InfeasibleBudgetError: before anything is evaluated.
        ResumeError: the log belongs to another search.
    """
    if num_trials < 1:
        raise ConfigError(f"num_trials must be at least 1, got {num_trials}")
    table = _table(mutator, example_inputs, table, budget)
    bounds = None if table is None else Budget.parse(budget, table)
    _check_calibration(mutator.model, calibrate)
    chooser = make_strategy(strategy, Feasible(mutator.space, table, bounds), seed)
    run = {
        "space": mutator.space.fingerprint,
        "budget": {} if bounds is None else bounds.to_dict(),
        "strategy": strategy if isinstance(strategy, str) else getattr(strategy, "__name__", "custom"),
        "seed": seed,
        "objective": objective,
    }
    trials: list[Trial] = []
    with _open(log, run, resume) as book:
        for past in book.trials[:num_trials]:
            _replay(past, chooser)
            trials.append(past)
        try:
            while len(trials) < num_trials:
                architecture = chooser.ask()
                if architecture is None:
                    return History(trials, exhausted=True)
                costs = _costs(architecture, table, bounds)
                start = time.perf_counter()
                score, metrics = _score(evaluate, _candidate(net, mutator, architecture, calibrate), objective)
                trial = Trial(len(trials), architecture, score, metrics, costs, time.perf_counter() - start)
                chooser.tell(architecture, score)
                trials.append(trial)
                book.append(trial)
                if on_trial is not None:
                    on_trial(trial, num_trials)
        except KeyboardInterrupt:
            return History(trials, interrupted=True)
    return History(trials)


def _table(
    mutator: Mutator, example_inputs: ExampleInputs | None, table: CostTable | None, budget: object
) -> CostTable | None:
    if table is None and example_inputs is not None:
        return CostTable.from_model(mutator, example_inputs)
    if table is None and budget is not None:
        raise BudgetError("a budget needs costs: give example_inputs, or a table")
    return table


def _costs(architecture: Architecture, table: CostTable | None, bounds: Budget | None) -> Costs | None:
    """What an architecture costs; a strategy that left the budget is told so before anything is evaluated."""
    costs = None if table is None else table(architecture)
    if costs is not None and bounds is not None and not bounds.allows(costs):
        raise BudgetError(
            f"the strategy asked for {architecture}, which is outside of {bounds}; take what feasible.accept or "
            "feasible.draw gives"
        )
    return costs


def _replay(past: Trial, chooser: Strategy) -> None:
    """Bring a strategy to where it was after a trial of the log."""
    asked = chooser.ask()
    if asked != past.architecture:
        raise ResumeError(
            f"trial {past.index} of the log is {past.architecture}, and the strategy now asks for {asked}: it, or its "
            "options, changed; give another log to start anew"
        )
    chooser.tell(past.architecture, past.score)


def _candidate(net: nn.Module, mutator: Mutator, architecture: Mapping[str, Any], calibrate: Any) -> nn.Module:
    return export(net, architecture, mutator=mutator, calibrate=None if calibrate is False else calibrate).eval()


def _score(evaluate: Evaluate, model: nn.Module, objective: str | None) -> tuple[float, dict[str, float]]:
    result = evaluate(model)
    if not isinstance(result, Mapping):
        if objective is not None:
            raise ConfigError(
                f"the objective {objective!r} names an entry of what evaluate returns, and that is no dict but "
                f"{type(result).__name__}; return a dict, or leave the objective out"
            )
        return as_score(_number(result)), {}
    metrics = {name: _number(value) for name, value in result.items()}
    if not metrics:
        raise ConfigError("evaluate returned no entries, an empty dict; return what to maximise")
    name = next(iter(metrics)) if objective is None else objective
    if name not in metrics:
        raise ConfigError(f"evaluate returned no {name!r}; {nearest(name, metrics)}")
    return as_score(metrics[name]), metrics


def _number(value: Any) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


def _check_calibration(model: nn.Module, calibrate: Any) -> None:
    if calibrate is None and any(isinstance(m, _BatchNorm) and m.track_running_stats for m in model.modules()):
        warnings.warn(
            "subnets with BatchNorm are scored with the supernet's statistics, which ranks them badly; give "
            "calibrate=batches of training data, or calibrate=False if evaluate does it",
            stacklevel=3,
        )
    if calibrate is not None and calibrate is not False and iter(calibrate) is calibrate:
        raise ConfigError("calibrate must be a list or another iterable that can be read again, not an iterator")


def _open(log: str | os.PathLike[str] | None, run: Mapping[str, Any], resume: str) -> Log:
    if resume not in ("auto", "never", "must"):
        raise ConfigError(f"no resume mode {resume!r}; {nearest(resume, ('auto', 'never', 'must'))}")
    exists = log is not None and os.path.exists(log)
    if exists and resume == "never":
        raise ResumeError(f"{log} exists; delete it, or give another log or resume='auto'")
    if not exists and resume == "must":
        raise ResumeError(f"there is no log {log} to resume")
    return Log(log, run)
