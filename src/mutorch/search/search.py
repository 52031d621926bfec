"""Search a supernet, or any space, under a budget."""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutorch.cost import Budget, CostTable, ExampleInputs
from mutorch.cost.budget import BudgetSpec
from mutorch.errors import BudgetError, ConfigError, ResumeError, nearest
from mutorch.mutators import Mutator
from mutorch.space import SearchSpace
from mutorch.subnet import LatencyRunner
from mutorch.subnet import remeasure as measure_again

from .address import Address, is_address
from .evaluation import Evaluate, EvaluateArchitecture, Evaluation, SubnetEvaluation
from .feasible import Feasible
from .history import History, Trial
from .log import Log
from .loop import Judge, OnTrial, ask_and_tell, finished
from .objectives import Objectives
from .pools import PoolFactory, deadline, is_first, make_pool, open_log
from .shared import SharedStudy
from .shared_loop import Participant
from .strategies import StrategyFactory, make_strategy
from .winners import LATENCY, file_beside, latency_bounds, measured_again, with_latency

AHEAD = 8
"""How many trials may be under way at once; a number of its own, so that results do not depend on how many work."""


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
    max_seconds: float | None = None,
    seed: int = 0,
    objective: str | Sequence[str] | None = None,
    constraints: Mapping[str, Any] | None = None,
    calibrate: Iterable[Any] | Literal[False] | None = None,
    runner: LatencyRunner | None = None,
    remeasure: int = 5,
    workers: int | PoolFactory = 0,
    ahead: int = AHEAD,
    log: str | os.PathLike[str] | None = None,
    resume: Literal["auto", "never", "must"] = "auto",
    on_trial: OnTrial | Sequence[OnTrial] | None = None,
    on_error: Literal["raise", "record"] = "raise",
) -> History:
    """The best subnets of a trained supernet within a budget. The supernet is left as it is.

    Each candidate is exported, its BatchNorm statistics are recalibrated, and `evaluate` scores it. No architecture is
    evaluated twice. Ctrl-C ends the search and returns what was found. With a log, calling the same line again goes on
    where it stopped, also after a crash, and ends with the same result; a larger `num_trials` goes on further.

    Args:
        evaluate: see `Evaluate`. A result that is not a number ranks last. The global random generators are seeded for each trial,
            and are as before afterwards.
        budget: see `Budget`; needs `example_inputs` or `table`. No candidate is outside of it.
        example_inputs: what the costs are counted on; a batch of one for costs per sample.
        table: the costs, where they are counted already.
        strategy: `"evolution"`, `"random"` and the others of docs/samplers.md, or a function of (`Feasible`, seed).
        num_trials: how many architectures to evaluate, those in the log included.
        max_seconds: begin no trial after that time; the same line again goes on, with a log. No limit unless given.
        seed: decides, with the scores, everything that is random.
        objective: which entry to maximise where `evaluate` returns a dict, the first unless given; with a minus before it, to
            minimise. Several, costs among them, for a front: `["accuracy", "-macs"]`.
        constraints: bounds on what is only known after the evaluation, in plain numbers: `{"seconds": 12.0}` is at most that,
            `{"recall": (0.9, None)}` at least. What breaks them ranks behind all that keeps to them.
        calibrate: batches to recalibrate with (inputs, or tuples that begin with them), a list or another iterable that
            can be read again; `False` to score with the supernet's statistics knowingly.
        runner: how latency is measured, where it matters. Unless the table has `latency_ms` already (which it must in a search that
            several share), one is built of some measured subnets before the search, and kept beside the log; budgets and objectives then know `latency_ms`, and the best of the
            search are measured again: `history.measured`.
        remeasure: how many of the best are measured again by the runner; more, as long as none is within the budget then.
        workers: how many processes evaluate, 0 for this one, or under torchrun for all ranks, each of which calls this; or a function
            that makes a `Pool`, such as `Processes(4, threads=2)` or `RayWorkers(16)`. Results do not depend on it.
        ahead: how many trials may be under way at once, so how many workers are of use. Results depend on it, as on the seed: a
            strategy learns of a trial before it is asked for the `ahead`-th after it.
        log: a `.jsonl` file, which one search writes; or the address of a storage that several share, such as
            `postgresql://user@host/db#name`: see docs/resume-and-share.md.
        resume: whether a log that exists is continued: `"auto"`, or an error if it does (`"never"`) or does not
            (`"must"`).
        on_trial: called after each new trial with it and `num_trials`, in order; or several of these.
        on_error: whether an error in `evaluate` is raised, or recorded as a trial that ranks last (`"record"`).

    Errors:
        BudgetError, InfeasibleBudgetError: before anything is evaluated.
        ResumeError: the log belongs to another search, or is damaged.
        LogLockedError: another search writes it.
        StorageError: a shared storage that does not answer.
    """
    if isinstance(remeasure, bool) or not isinstance(remeasure, int) or remeasure < 1:
        raise ConfigError(f"remeasure must be a whole number of at least 1, got {remeasure!r}")
    _check_calibration(mutator.model, calibrate)
    table = _table(mutator, example_inputs, table, budget)
    if runner is not None:
        if not isinstance(runner, LatencyRunner):
            raise ConfigError(f"a runner is a LatencyRunner, such as LatencyRunner(runtime=...), got {runner!r}")
        if table is None or example_inputs is None:
            raise ConfigError("a runner measures on example_inputs: give them too")
        if is_address(log) and LATENCY not in table.metrics:
            raise ConfigError(
                "those who share a search need the same latencies: build one with mutorch.latency_table, save it, and give all of "
                f"them table=costs.with_metric({LATENCY!r}, LatencyTable.load(...))"
            )
        table = with_latency(table, net, mutator, example_inputs, runner, file_beside(log))
    history = search_space(
        mutator.space,
        SubnetEvaluation(net, mutator, evaluate, calibrate),
        table=table,
        budget=budget,
        strategy=strategy,
        num_trials=num_trials,
        max_seconds=max_seconds,
        seed=seed,
        objective=objective,
        constraints=constraints,
        workers=workers,
        ahead=ahead,
        log=log,
        resume=resume,
        on_trial=on_trial,
        on_error=on_error,
    )
    if runner is None or table is None or example_inputs is None or history.interrupted or not history.trials:
        return history
    bounds = latency_bounds(Budget.parse(budget, table), Objectives.parse(objective, constraints))
    try:
        return measured_again(
            history,
            lambda some: measure_again(
                net, mutator, some, runner, example_inputs, table=table, budget=bounds, metric=LATENCY
            ),
            remeasure,
        )
    except KeyboardInterrupt:
        return replace(history, interrupted=True)
    except Exception as error:  # what was found is worth more than what was to be measured
        warnings.warn(f"the best could not be measured again: {type(error).__name__}: {error}", stacklevel=2)
        return history


def search_space(
    space: SearchSpace,
    evaluate: EvaluateArchitecture,
    *,
    table: CostTable | None = None,
    budget: BudgetSpec | Budget | None = None,
    strategy: str | StrategyFactory = "evolution",
    num_trials: int = 100,
    max_seconds: float | None = None,
    seed: int = 0,
    objective: str | Sequence[str] | None = None,
    constraints: Mapping[str, Any] | None = None,
    workers: int | PoolFactory = 0,
    ahead: int = AHEAD,
    log: str | os.PathLike[str] | None = None,
    resume: Literal["auto", "never", "must"] = "auto",
    on_trial: OnTrial | Sequence[OnTrial] | None = None,
    on_error: Literal["raise", "record"] = "raise",
) -> History:
    """The best architectures of a space, where `evaluate` takes an architecture: a table of results, a training of your own.

    `search` is this for the subnets of a supernet; the arguments are described there.

    Example:
        >>> from mutorch.space import Decision
        >>> space = SearchSpace([Decision("depth", (1, 2, 3)), Decision("width", (8, 16))])
        >>> history = search_space(space, lambda a: {"size": a["depth"] * a["width"]}, objective="-size", num_trials=6)
        >>> history.best.architecture, history.best.score
        ({'depth': 1, 'width': 8}, -8.0)
    """
    _check_numbers(num_trials, ahead, seed, max_seconds)
    _check_word("resume mode", resume, ("auto", "never", "must"))
    _check_word("on_error", on_error, ("raise", "record"))
    if budget is not None and table is None:
        raise BudgetError("a budget needs costs: give a table")
    bounds = None if table is None else Budget.parse(budget, table)
    objectives = Objectives.parse(objective, constraints)
    feasible = Feasible(space, table, bounds)
    chooser = make_strategy(strategy, feasible, seed)
    listeners = _listeners(on_trial)
    run = {
        "space": space.fingerprint,
        "budget": {} if bounds is None else bounds.to_dict(),
        "strategy": strategy if isinstance(strategy, str) else getattr(strategy, "__name__", "custom"),
        "seed": seed,
        "ahead": ahead,
        **objectives.to_dict(),
    }
    judge = Judge(objectives, table, bounds, on_error)
    trials: list[Trial] = []
    exhausted = interrupted = False
    if is_address(log):
        del run["ahead"]  # which one may have and another not
        with (
            make_pool(workers, Evaluation(evaluate, seed), ahead) as pool,
            SharedStudy(Address.parse(str(log)), space, objectives.names, run, resume) as study,
        ):
            make = partial(make_strategy, strategy, feasible)
            participant = Participant(study, feasible, make, seed, judge, num_trials)
            try:
                exhausted = participant.take_part(pool, listeners, deadline(pool, max_seconds))
            except KeyboardInterrupt:
                interrupted = True
        return finished(participant.trials(), exhausted, interrupted, objectives, run)
    with (
        make_pool(workers, Evaluation(evaluate, seed), ahead) as pool,
        open_log(
            pool, lambda: _open(log, run, resume), {**run, "num_trials": num_trials, "on_error": on_error}
        ) as book,
    ):
        try:
            exhausted = ask_and_tell(
                chooser,
                pool,
                book,
                judge,
                trials,
                num_trials=num_trials,
                ahead=ahead,
                on_trial=listeners if is_first(pool) else (),
                is_over=deadline(pool, max_seconds),
            )
        except KeyboardInterrupt:
            interrupted = True
    return finished(trials, exhausted, interrupted, objectives, run)


def _table(
    mutator: Mutator, example_inputs: ExampleInputs | None, table: CostTable | None, budget: object
) -> CostTable | None:
    if table is None and example_inputs is not None:
        return CostTable.from_model(mutator, example_inputs)
    if table is None and budget is not None:
        raise BudgetError("a budget needs costs: give example_inputs, or a table")
    return table


def _check_calibration(model: nn.Module, calibrate: Any) -> None:
    if calibrate is None and any(isinstance(m, _BatchNorm) and m.track_running_stats for m in model.modules()):
        warnings.warn(
            "subnets with BatchNorm are scored with the supernet's statistics, which ranks them badly; give "
            "calibrate=batches of training data, or calibrate=False if evaluate does it",
            stacklevel=3,
        )
    if calibrate is not None and calibrate is not False and iter(calibrate) is calibrate:
        raise ConfigError("calibrate must be a list or another iterable that can be read again, not an iterator")


def _check_numbers(num_trials: Any, ahead: Any, seed: Any, max_seconds: Any) -> None:
    for name, value in (("num_trials", num_trials), ("ahead", ahead)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise ConfigError(f"seed must be a whole number, got {seed!r}")
    if max_seconds is not None and (not isinstance(max_seconds, int | float) or not max_seconds > 0):
        raise ConfigError(f"max_seconds must be above 0, or left out for no limit, got {max_seconds!r}")


def _listeners(on_trial: OnTrial | Sequence[OnTrial] | None) -> tuple[OnTrial, ...]:
    listeners = (on_trial,) if callable(on_trial) else tuple(on_trial or ())
    for listener in listeners:
        if not callable(listener):
            raise ConfigError(f"on_trial is a function of (trial, num_trials), or a list of these, got {listener!r}")
    return listeners


def _check_word(name: str, word: str, allowed: tuple[str, ...]) -> None:
    if word not in allowed:
        raise ConfigError(f"no {name} {word!r}; {nearest(word, allowed)}")


def _open(log: str | os.PathLike[str] | None, run: Mapping[str, Any], resume: str) -> Log:
    if log is not None and (not os.fspath(log) or os.path.isdir(log)):
        raise ResumeError(
            f"a log is a file, such as 'search.jsonl', got {os.fspath(log)!r}{' (a folder)' if log else ''}"
        )
    exists = log is not None and os.path.exists(log)
    if exists and resume == "never":
        raise ResumeError(f"{log} exists; delete it, or give another log or resume='auto'")
    if not exists and resume == "must":
        raise ResumeError(f"there is no log {log} to resume")
    return Log(log, run)
