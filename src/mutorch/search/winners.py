"""The best of a search, measured again: what a table predicted is not what a device does."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from mutorch.cost import Budget, CostTable, ExampleInputs, LatencyTable
from mutorch.errors import ResumeError
from mutorch.mutators import Mutator
from mutorch.space import Architecture
from mutorch.subnet import LatencyRunner, Remeasured, latency_table

from .first_rank import on_first_rank
from .history import History
from .objectives import Objectives

LATENCY = "latency_ms"
"""What the latency of a search's runner is called in budgets, objectives and costs."""
_SETTING = ("device", "dtype", "threads", "batch")
MOST = 20
"""How many are measured again at most where none is within the bound."""


def with_latency(
    table: CostTable,
    net: nn.Module,
    mutator: Mutator,
    example_inputs: ExampleInputs,
    runner: LatencyRunner,
    file: Path | None = None,
    **options: Any,
) -> CostTable:
    """The costs with a table of latencies, unless they have one; read from a file if it is there, else measured and written to it.

    Args:
        options: for `latency_table`: `num_samples`, `tolerance`.

    Errors:
        LoadError: the file is of another space.
        ResumeError: the file was measured otherwise than the runner measures.
    """
    if LATENCY in table.metrics:
        return table

    def content() -> dict[str, Any]:
        if file is not None and file.exists():
            found = LatencyTable.load(file, mutator.space)
            _check_same_device(found, runner, file)
            return found.to_dict()
        measured = latency_table(net, mutator, example_inputs, runner=runner, costs=table, **options)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            measured.save(file)
        return measured.to_dict()

    return table.with_metric(LATENCY, LatencyTable.from_dict(on_first_rank(content), mutator.space))


def file_beside(log: str | os.PathLike[str] | None) -> Path | None:
    """Where the latencies of a search with this log are kept; nowhere for a search without one."""
    return None if log is None else Path(f"{os.fspath(log)}.latency.json")


def _check_same_device(table: LatencyTable, runner: LatencyRunner, file: Path) -> None:
    options = {"threads": f"{runner.threads} threads", "batch": f"batch {runner.batch}"}
    wanted = [
        runner.name,
        *(options.get(name, value) for name in _SETTING if (value := getattr(runner, name)) is not None),
    ]
    known = table.measured_on.replace(" (", ", ").split(", ")
    missing = [word for word in wanted if word not in known]
    if missing:
        raise ResumeError(
            f"{file} holds latencies of another setting ({table.measured_on}), and the runner is of {', '.join(missing)}; the search "
            "went by these: give the same runner, or another log to start anew"
        )


def latency_bounds(budget: Budget, objectives: Objectives) -> Budget:
    """What a measured latency must keep to: the budget and the constraints on it."""
    pairs = [bounds[LATENCY] for bounds in (budget.bounds, objectives.constraints) if LATENCY in bounds]
    if not pairs:
        return Budget({})
    return Budget({LATENCY: (max(low for low, _ in pairs), min(high for _, high in pairs))})


def measured_again(
    history: History, measure: Callable[[Sequence[Architecture]], Sequence[Remeasured]], count: int
) -> History:
    """The history with the latency of its `count` best, measured again; of more, as long as none is within the bound.

    Example:
        >>> from mutorch.cost import Measured
        >>> from mutorch.search import Trial
        >>> def measure(architectures):
        ...     times = [Measured.of([float(a["width"])], runtime="paper") for a in architectures]
        ...     return [Remeasured(a, t, within=t.median_ms <= 3) for a, t in zip(architectures, times)]
        >>> trials = [Trial(n, {"width": n + 1}, score=n / 10) for n in range(6)]
        >>> measured_again(History(trials), measure, 2).best.architecture
        {'width': 3}
    """
    ranked = [trial for trial in history.top(MOST) if trial.is_feasible]
    found: dict[int, Remeasured] = {}
    for start in range(0, len(ranked), count):
        group = ranked[start : start + count]
        records = on_first_rank(partial(measure, [trial.architecture for trial in group]))
        found |= {trial.index: record for trial, record in zip(group, records, strict=True)}
        if any(record.within is not False for record in records):
            break
    else:
        if found:
            warnings.warn(
                f"none of the {len(found)} best is within the bound when measured again: {next(iter(found.values()))}; lower the "
                "bound, or build the table of more measurements",
                stacklevel=3,
            )
    return replace(history, measured=found)
