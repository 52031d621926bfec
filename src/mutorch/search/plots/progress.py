"""How a search went: each trial, and the best so far."""

from typing import Literal

import numpy as np

from mutorch.errors import ConfigError, StateError, nearest
from mutorch.search.random_start import random_start

from .drawing import BLUE, GREY, INK, ORANGE, RED, Axes, Figure, legend_above, new_figure, note, points, quiet, scale
from .quantities import Mask, Quantity, Searched, Values, quantity

_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))


def progress_figure(
    history: Searched,
    y: str | None = None,
    *,
    by: Literal["trials", "time"] = "trials",
    num_random: int | None = None,
    baseline: Searched | None = None,
) -> Figure:
    """Each trial's score and the best so far, beside what random search found.

    Args:
        y: an objective, metric or cost; the first objective unless given.
        by: `"time"` counts the seconds that evaluations took, summed over trials.
        num_random: how many trials at the beginning are random; the strategy's own number unless given, where it is known.
        baseline: another search, of a random strategy say, whose best so far is drawn as well.

    Errors:
        StateError: no trials, or none that has what is asked for.

    Example:
        >>> from mutorch.search import History, Trial
        >>> figure = progress_figure(History([Trial(0, {}, 0.5), Trial(1, {}, 0.7)]))
        >>> figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
        ('trial', 'score')
    """
    if by not in ("trials", "time"):
        raise ConfigError(f"progress is drawn by 'trials' or 'time', not by {by!r}; {nearest(by, ('trials', 'time'))}")
    if not history.trials:
        raise StateError("the search has no trials yet")
    one = quantity(history, y)
    start = random_start(history.run, len(history.trials)) if num_random is None else num_random
    figure = new_figure()
    axes = figure.subplots()
    x, unit = _across(history, by)
    values = one.of(history.trials)
    holds = np.array([trial.is_feasible for trial in history.trials])
    if start and start < len(x):
        _mark_random(axes, one, x, np.where(holds, values, np.nan), start)
    _dots(axes, history, x, values, holds)
    if baseline is not None:
        _baseline(axes, one, baseline, by)
    best = best_so_far(values, holds, one.sign)
    axes.step(x, best, where="post", color=BLUE, linewidth=1.6, label="best so far", zorder=3)
    known = np.flatnonzero(np.isfinite(best))
    if len(known):
        first = known[np.argmax(one.sign * best[known])]
        star = {"s": 170, "marker": "*", "color": ORANGE, "edgecolors": "white", "linewidths": 0.8, "zorder": 4}
        axes.scatter(x[first : first + 1], best[first : first + 1], label=f"best: {best[first]:.6g}", **star)
    outside = scale(axes, "y", one, values, best)
    if outside:
        note(axes, f"{outside} far outside")
    axes.set_xlabel("trial" if by == "trials" else f"time of evaluations, {unit}", fontsize=9)
    quiet(axes)
    legend_above(figure, axes)
    return figure


def best_so_far(values: Values, holds: Mask, sign: int) -> Values:
    """The best until each trial, of those that count; not-a-number before the first of them.

    Example:
        >>> best_so_far(np.array([1.0, 9.0, 0.5, 3.0]), np.array([True, False, True, True]), 1).tolist()
        [1.0, 1.0, 1.0, 3.0]
    """
    counted = np.where(holds & np.isfinite(values), sign * values, -np.inf)
    best = np.maximum.accumulate(counted)
    return np.where(np.isfinite(best), sign * best, np.nan)


def _across(history: Searched, by: str) -> tuple[Values, str]:
    if by == "trials":
        return np.array([trial.index for trial in history.trials], dtype=np.float64), ""
    seconds = np.cumsum([trial.seconds for trial in history.trials])
    unit, size = next((pair for pair in _UNITS if seconds[-1] >= 2 * pair[1]), _UNITS[-1])
    return seconds / size, unit


def _mark_random(axes: Axes, one: Quantity, x: Values, values: Values, start: int) -> None:
    axes.axvspan(
        x[0], (x[start - 1] + x[start]) / 2, color=GREY, alpha=0.22, linewidth=0, label=f"first {start}, random"
    )
    known = values[:start][np.isfinite(values[:start])]
    if len(known):
        best = float(one.sign * (one.sign * known).max())
        axes.axhline(best, color=INK, linestyle=":", linewidth=1, label=f"best of these: {best:.6g}")


def _dots(axes: Axes, history: Searched, x: Values, values: Values, holds: Mask) -> None:
    drawn = np.isfinite(values)
    shown = holds & drawn
    points(axes, x[shown], values[shown], size=16, color=GREY, alpha=0.75, linewidths=0, label=f"{shown.sum()} trials")
    breaks = drawn & ~holds
    if breaks.any():
        label = f"{breaks.sum()} that break constraints"
        points(axes, x[breaks], values[breaks], size=22, marker="x", color=RED, alpha=0.5, linewidths=0.8, label=label)
    if not drawn.all():
        failed = sum(trial.error is not None for trial in history.trials)
        what = "failed" if failed == (~drawn).sum() else "without a finite number"
        where = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.plot(x[~drawn], np.zeros((~drawn).sum()), "|", color=RED, label=f"{(~drawn).sum()} {what}", **where)


def _baseline(axes: Axes, one: Quantity, baseline: Searched, by: str) -> None:
    holds = np.array([trial.is_feasible for trial in baseline.trials], dtype=bool)
    best = best_so_far(quantity(baseline, one.name).of(baseline.trials), holds, one.sign)
    label = f"{baseline.run.get('strategy', 'baseline')}, best so far"
    axes.step(_across(baseline, by)[0], best, where="post", color=INK, linestyle="--", linewidth=1, label=label)
