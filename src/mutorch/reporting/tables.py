"""The tables of a report."""

from collections.abc import Mapping, Sequence
from typing import Any

from mutorch.search import History, Trial
from mutorch.search.plots.drawing import choice_text, number_text
from mutorch.search.plots.quantities import cost_names, objectives_of
from mutorch.space import Choice

from .page import Table

_COSTS = ("macs", "params", "size_mb", "latency_ms")
_WHOLE = 8
"""Decisions up to which an architecture is written whole; above, its differences to the winner."""
_DIFFERENCES = 5


def trial_table(history: History, trials: Sequence[Trial]) -> Table:
    """Trials, a line each: objectives, metrics, costs, architecture. The best of the search is marked."""
    aims = objectives_of(history)
    counted = cost_names(history.trials)
    costs = [name for name in (*_COSTS, *counted[5:]) if name in counted and name not in [one.name for one in aims]]
    costs = list(dict.fromkeys(costs))
    shown = {one.name for one in aims}
    metrics = list(dict.fromkeys(name for trial in trials for name in trial.metrics if name not in shown))[:4]
    best = history.best
    states = [_state(trial) for trial in trials]
    rows = []
    for trial, state in zip(trials, states, strict=True):
        aimed = [number_text(float(one.of([trial])[0])) for one in aims]
        measured = [number_text(trial.metrics[name]) if name in trial.metrics else "" for name in metrics]
        priced = ["" if trial.costs is None else number_text(trial.costs[name]) for name in costs]
        told = [state] if any(states) else []
        text = architecture_text(trial.architecture, best.architecture)
        rows.append([str(trial.index), *aimed, *measured, *priced, *told, text])
    told = ["state"] if any(states) else []
    head = ["trial", *(one.name for one in aims), *metrics, *costs, *told, "architecture"]
    numbers = frozenset(range(len(head) - 1 - len(told)))
    return Table(head, rows, numbers, frozenset(n for n, trial in enumerate(trials) if trial.index == best.index))


def architecture_text(architecture: Mapping[str, Choice], best: Mapping[str, Choice]) -> str:
    """An architecture in a line: its choices, or where it has many how it differs from the best."""
    if len(architecture) <= _WHOLE:
        return " ".join(choice_text(choice, 28) for choice in architecture.values())
    other = [name for name in architecture if architecture[name] != best.get(name)]
    if not other:
        return "the best"
    shown = ", ".join(f"{name} {choice_text(architecture[name])}" for name in other[:_DIFFERENCES])
    more = f" and {len(other) - _DIFFERENCES} more" if len(other) > _DIFFERENCES else ""
    return f"as the best but {shown}{more}"


def _state(trial: Trial) -> str:
    if trial.error is not None:
        return choice_text(trial.error, 60)
    return "" if trial.is_feasible else f"breaks constraints by {trial.violation:.3g}"


def facts(lines: Sequence[tuple[str, Any]]) -> Table:
    """A table of two columns without a head."""
    return Table((), [[name, str(value)] for name, value in lines])
