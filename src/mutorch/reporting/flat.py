"""Trials and runs as flat names and values, as loggers take them."""

import json
import math
from collections.abc import Mapping
from typing import Any

from mutorch.search import Trial
from mutorch.search.plots.quantities import cost_names


def numbers_of(trial: Trial, best: Trial) -> dict[str, float]:
    """The finite numbers of a trial, and the best score until then.

    Example:
        >>> numbers_of(Trial(0, {}, 0.5, {"loss": 1.0}, values=(0.5, -2.0)), Trial(0, {}, 0.5))
        {'score': 0.5, 'objective_1': -2.0, 'metrics/loss': 1.0, 'seconds': 0.0, 'violation': 0.0, 'failed': 0.0, 'best': 0.5}
    """
    found: dict[str, float] = {"score": trial.score}
    found |= {f"objective_{number}": value for number, value in enumerate(trial.values[1:], start=1)}
    found |= {f"metrics/{name}": value for name, value in trial.metrics.items()}
    if trial.costs is not None:
        found |= {f"costs/{name}": trial.costs[name] for name in cost_names([trial])}
    found |= {"seconds": trial.seconds, "violation": trial.violation, "failed": float(trial.error is not None)}
    found["best"] = best.score
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def flat_run(run: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What a search was, without nesting: `budget/macs`, and lists as JSON.

    Example:
        >>> flat_run({"seed": 0, "budget": {"macs": [None, 1e6]}})
        {'seed': 0, 'budget/macs': '[null, 1000000.0]'}
    """
    found: dict[str, Any] = {}
    for name, value in run.items():
        if isinstance(value, Mapping):
            found |= flat_run(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = value if isinstance(value, str | int | float | bool) else json.dumps(value)
    return found
