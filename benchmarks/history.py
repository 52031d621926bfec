"""The log of a search: what a trial costs to write down, and a long log to read."""

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.measure import in_turns
from mutorch.cost import Costs
from mutorch.search import Trial
from mutorch.search import log as log_module
from mutorch.search.log import Log
from mutorch.space import Decision, SearchSpace

SPACE = SearchSpace([Decision(f"blocks.{n}", ("conv3", "conv5", "conv7", "skip")) for n in range(20)])
RUN = {"space": SPACE.fingerprint, "seed": 0}


def run() -> dict[str, float]:
    """Median microseconds for each trial appended, with and without waiting for the disk; seconds to read 10 000 trials."""
    trials = [_trial(index) for index in range(10_000)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        figures = {
            "append one trial, on the disk, microseconds": _append(path / "synced.jsonl", trials[:1000], seconds=1.0),
            "append one trial that took no time, microseconds": _append(path / "quick.jsonl", trials, seconds=0.0),
        }
        (reading,) = in_turns(lambda: _read(path / "quick.jsonl", len(trials)), repeats=5)
        figures["read and check a log of 10 000 trials, seconds"] = reading
        figures["bytes of a trial with 20 decisions"] = (path / "quick.jsonl").stat().st_size / len(trials)
    return figures


def _trial(index: int) -> Trial:
    return Trial(index, SPACE.sample(index), index / 7, {"acc": index / 7, "loss": 0.1}, Costs(index, 2, 0.5, 0.25))


def _append(path: Path, trials: list[Trial], seconds: float) -> float:
    """The median time of an append; trials whose evaluation took long are waited for on the disk."""
    assert log_module.SYNC_SECONDS < 1
    slow = [Trial(t.index, t.architecture, t.score, t.metrics, t.costs, seconds) for t in trials]
    times = []
    with Log(path, RUN) as log:
        for trial in slow:
            start = time.perf_counter()
            log.append(trial)
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def _read(path: Path, expected: int) -> None:
    with Log(path, RUN) as log:
        assert len(log.trials) == expected
