"""How much of the space of objectives the front covers, trial by trial."""

from collections.abc import Mapping

import numpy as np

from mutorch.errors import StateError, nearest
from mutorch.search.dominance import dominates, hypervolume
from mutorch.search.random_start import random_start
from mutorch.utils import require

from .drawing import BLUE, GREY, INK, Figure, legend_above, new_figure, quiet
from .quantities import LARGEST, Searched, Values, objectives_of


def hypervolume_figure(
    history: Searched,
    reference: Mapping[str, float] | None = None,
    *,
    num_random: int | None = None,
    baseline: Searched | None = None,
) -> Figure:
    """The hypervolume of the front over the trials; more is better, and flat means that nothing new was found.

    Args:
        reference: see `History.hypervolume`; the worst of all trials unless given, those of the baseline included.
        num_random, baseline: see `progress_figure`.

    Errors:
        StateError: no trial that keeps to all constraints, or an objective without a reference.

    Example:
        >>> from mutorch.search import History, Trial
        >>> trials = [Trial(i, {}, i, values=(i, -i)) for i in range(4)]
        >>> hypervolume_figure(History(trials, objectives=("accuracy", "-macs"))).axes[0].get_ylabel()
        'hypervolume of accuracy, macs'
    """
    searches = [history, *([] if baseline is None else [baseline])]
    floor = _floor(searches, reference)
    start = random_start(history.run, len(history.trials)) if num_random is None else num_random
    figure = new_figure()
    axes = figure.subplots()
    curve = volumes(history, floor)
    x = [trial.index for trial in history.trials]
    if start and start < len(x):
        axes.axvspan(x[0], x[start] - 0.5, color=GREY, alpha=0.22, linewidth=0, label=f"first {start}, random")
        axes.axhline(curve[start - 1], color=INK, linestyle=":", linewidth=1, label=f"of these: {curve[start - 1]:.4g}")
    if baseline is not None:
        label = str(baseline.run.get("strategy", "baseline"))
        own = [trial.index for trial in baseline.trials]
        axes.step(own, volumes(baseline, floor), where="post", color=INK, linestyle="--", linewidth=1, label=label)
    axes.step(x, curve, where="post", color=BLUE, linewidth=1.6, label=f"front so far: {curve[-1]:.4g}")
    axes.set_xlabel("trial", fontsize=9)
    axes.set_ylabel(f"hypervolume of {', '.join(one.name for one in objectives_of(history))}", fontsize=9)
    axes.set_ylim(bottom=0)
    if curve[-1] >= 10_000:
        axes.yaxis.set_major_formatter(require("matplotlib.ticker", extra="report").EngFormatter(sep=""))
    quiet(axes)
    legend_above(figure, axes)
    return figure


def volumes(history: Searched, floor: Values) -> Values:
    """The hypervolume after each trial."""
    front: list[tuple[float, ...]] = []
    found, volume = [], 0.0
    for trial in history.trials:
        new = trial.values
        if _counts(trial.values, trial.is_feasible) and not any(one == new or dominates(one, new) for one in front):
            front = [*(one for one in front if not dominates(new, one)), new]
            volume = hypervolume(front, floor.tolist())
        found.append(volume)
    return np.array(found)


def _counts(values: tuple[float, ...], is_feasible: bool) -> bool:
    return is_feasible and all(abs(value) <= LARGEST for value in values)


def _floor(searches: list[Searched], reference: Mapping[str, float] | None) -> Values:
    aims = objectives_of(searches[0])
    if reference is not None:
        for one in aims:
            if one.name not in reference:
                raise StateError(f"the reference has no {one.name!r}; {nearest(one.name, reference)}")
        return np.array([one.sign * float(reference[one.name]) for one in aims])
    values = [
        trial.values for search in searches for trial in search.trials if _counts(trial.values, trial.is_feasible)
    ]
    if not values:
        raise StateError("no trial keeps to all constraints, so there is no front")
    floor: Values = np.array(values, dtype=np.float64).min(axis=0)
    return floor
