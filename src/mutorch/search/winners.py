"""The best of a search, measured again: what a table predicted is not what a device does."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from mutorch.cost import CostTable, ExampleInputs, LatencyTable
from mutorch.errors import ConfigError
from mutorch.mutators import Mutator
from mutorch.space import Architecture
from mutorch.subnet import LatencyRunner, Remeasured, latency_table

from .first_rank import on_first_rank
from .history import History

LATENCY = "latency_ms"
"""What the latency of a search's runner is called in budgets, objectives and costs."""
MOST = 20
"""How many are measured again at most where none is within the bound."""


def with_latency(
    table: CostTable | None,
    net: nn.Module,
    mutator: Mutator,
    example_inputs: ExampleInputs | None,
    runner: LatencyRunner,
    log: str | os.PathLike[str] | None,
) -> CostTable:
    """The costs with a table of latencies; one that was measured for this log is read from beside it, else it is written there.

    Errors:
        ConfigError: no example inputs to measure on.
        LoadError: the file beside the log is of another space.
    """
    if example_inputs is None or table is None:
        raise ConfigError("a runner measures on example_inputs: give them too")
    if LATENCY in table.metrics:
        return table
    path = None if log is None or "://" in str(log) else Path(f"{os.fspath(log)}.latency.json")
    content = on_first_rank(lambda: _latencies(table, net, mutator, example_inputs, runner, path).to_dict())
    return table.with_metric(LATENCY, LatencyTable.from_dict(content, mutator.space))


def _latencies(
    table: CostTable,
    net: nn.Module,
    mutator: Mutator,
    example_inputs: ExampleInputs,
    runner: LatencyRunner,
    path: Path | None,
) -> LatencyTable:
    if path is not None and path.exists():
        return LatencyTable.load(path, mutator.space)
    measured = latency_table(net, mutator, example_inputs, runner=runner, costs=table)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        measured.save(path)
    return measured


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
        architectures = [trial.architecture for trial in group]
        records = on_first_rank(lambda some=architectures: measure(some))
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
