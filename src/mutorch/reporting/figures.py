"""The figures that fit a search, by name."""

import math
from typing import Any

from mutorch.search import History
from mutorch.search.plots import (
    hypervolume_figure,
    parallel_figure,
    pareto_figure,
    preference_figure,
    progress_figure,
)
from mutorch.space import SearchSpace


def figures_of(history: History, space: SearchSpace | None = None) -> dict[str, Any]:
    """All figures of `mutorch.search.plots` that this history has the numbers for."""
    found = {"progress": progress_figure(history)}
    if has_front(history):
        found["pareto"] = pareto_figure(history)
    if has_volume(history):
        found["hypervolume"] = hypervolume_figure(history)
    if has_choices(history):
        found["preferences"] = preference_figure(history, space=space)
        found["parallel"] = parallel_figure(history, space=space)
    return found


def has_front(history: History) -> bool:
    """Whether there are two things to trade off."""
    return len(history.objectives) > 1 or any(trial.costs is not None for trial in history.trials)


def has_volume(history: History) -> bool:
    """Whether there is a front of several objectives."""
    return len(history.objectives) > 1 and any(
        trial.is_feasible and all(map(math.isfinite, trial.values)) for trial in history.trials
    )


def has_choices(history: History) -> bool:
    """Whether scores can be compared by what was chosen."""
    scores = [trial.score for trial in history.trials if trial.error is None]
    return any(map(math.isfinite, scores)) and bool(history.trials[0].architecture)
