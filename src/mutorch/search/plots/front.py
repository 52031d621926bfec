"""What a search trades off: two objectives, or the score against a cost."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from mutorch.errors import ConfigError, StateError
from mutorch.search.trial import Trial

from .drawing import BLUE, GREY, INK, ORANGE, RED, Axes, Figure, legend_above, new_figure, note, points, quiet, scale
from .quantities import Mask, Quantity, Searched, Values, objectives_of, quantity

_MARKERS = "DsP^vX"


def pareto_figure(
    history: Searched,
    x: str | None = None,
    y: str | None = None,
    *,
    baselines: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """All trials, and the front of those that none beats in everything; the best is a star.

    With several objectives and neither `x` nor `y`, a panel for each pair of them.

    Args:
        x: an objective, cost or metric: the second objective unless given, or macs where there is one objective.
        y: another one: the first objective unless given. A minus before a metric says that less of it is better.
        baselines: what else is drawn, by name: `{"ResNet-18": {"accuracy": 0.89, "macs": 1.8e9}}`.

    Errors:
        StateError: no trials, or none that has what is asked for.
        ConfigError: a baseline without a number for an axis.

    Example:
        >>> from mutorch.search import History, Trial
        >>> trials = [Trial(i, {}, i, {"accuracy": i, "loss": i**2}, values=(i, -(i**2))) for i in range(4)]
        >>> pareto_figure(History(trials, objectives=("accuracy", "-loss"))).axes[0].get_ylabel()
        'accuracy'
    """
    if not history.trials:
        raise StateError("the search has no trials yet")
    pairs = _pairs(history, x, y)
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    figure = new_figure(8 if columns == 1 else 4.4 * columns, 4.8 if rows == 1 else 4.2 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (across, up) in zip(panels, pairs, strict=False):
        _panel(axes, history, across, up, baselines or {}, is_whole=len(pairs) == 1)
    for axes in panels[len(pairs) :]:
        axes.remove()
    legend_above(figure, panels[0])
    return figure


def staircase(x: Values, y: Values, signs: tuple[int, int]) -> Values:
    """The corners of the border of what points beat: (corners, 2), through all points of their front.

    Example:
        >>> staircase(np.array([1.0, 2.0, 3.0]), np.array([5.0, 4.0, 9.0]), (-1, 1)).tolist()
        [[1.0, 5.0], [3.0, 5.0], [3.0, 9.0]]
    """
    corners: list[tuple[float, float]] = []
    for right, top in sorted(zip(signs[0] * x, signs[1] * y, strict=True), reverse=True):
        if not corners:
            corners.append((right, top))
        elif top > corners[-1][1]:
            corners += [(right, corners[-1][1]), (right, top)]
    if not corners:
        return np.empty((0, 2))
    found: Values = np.array(corners, dtype=np.float64) * np.array(signs)
    kept = np.append(True, np.any(found[1:] != found[:-1], axis=1))
    return np.asarray(found[kept])


def _pairs(history: Searched, x: str | None, y: str | None) -> list[tuple[Quantity, Quantity]]:
    """(across, up) for each panel."""
    aims = objectives_of(history)
    if x is None and y is None and len(aims) > 2:
        chosen = combinations(aims, 2) if len(aims) == 3 else ((aims[0], other) for other in aims[1:])
        return [(across, up) for up, across in chosen]
    across = x if x is not None else aims[1].name if len(aims) > 1 else "macs"
    return [(quantity(history, across), quantity(history, y))]


def _panel(
    axes: Axes,
    history: Searched,
    across: Quantity,
    up: Quantity,
    baselines: Mapping[str, Mapping[str, float]],
    is_whole: bool,
) -> None:
    trials = history.trials
    x, y = across.of(trials), up.of(trials)
    drawn = np.isfinite(x) & np.isfinite(y)
    holds = np.array([trial.is_feasible for trial in trials]) & drawn
    breaks = drawn & ~holds
    if breaks.any():
        label = f"{breaks.sum()} that break constraints"
        points(axes, x[breaks], y[breaks], size=22, marker="x", color=RED, alpha=0.5, linewidths=0.8, label=label)
    signs = across.sign, up.sign
    # Where a panel shows two of more objectives, the front is that of all.
    aims = np.column_stack([x, y]) * signs if is_whole else np.array([trial.values for trial in trials])
    on_front = _on_front(trials, holds, aims)
    rest = holds & ~on_front
    points(axes, x[rest], y[rest], size=16, color=GREY, alpha=0.75, linewidths=0, label=f"{holds.sum()} trials")
    if is_whole and on_front.any():
        axes.plot(*staircase(x[on_front], y[on_front], signs).T, color=BLUE, linewidth=1, alpha=0.7)
    axes.scatter(x[on_front], y[on_front], s=26, color=BLUE, zorder=3, label=f"Pareto front, {on_front.sum()}")
    keep = [on_front]
    best = history.best.index
    is_best = np.array([trial.index == best for trial in trials])
    if drawn[is_best].all():
        keep.append(is_best)
        star = {"s": 170, "marker": "*", "color": ORANGE, "edgecolors": "white", "linewidths": 0.8, "zorder": 4}
        axes.scatter(x[is_best], y[is_best], label="best", **star)
    others = _baselines(axes, baselines, across, up)
    kept = np.logical_or.reduce(keep)
    outside = scale(axes, "x", across, np.append(x[drawn], others[:, 0]), np.append(x[kept], others[:, 0]))
    outside += scale(axes, "y", up, np.append(y[drawn], others[:, 1]), np.append(y[kept], others[:, 1]))
    if outside:
        note(axes, f"{outside} far outside")
    if not drawn.all():
        note(axes, f"{(~drawn).sum()} without these numbers")
    quiet(axes)


def _on_front(trials: Sequence[Trial], holds: Mask, values: Values) -> Mask:
    """The trials of the front, of equal ones the first."""
    numbers = np.flatnonzero(holds)
    found = np.zeros(len(trials), dtype=bool)
    found[numbers] = _undominated(values[numbers]) & _first(values[numbers])
    return found


def _first(values: Values) -> Mask:
    """Whether no row before it is equal."""
    found = np.zeros(len(values), dtype=bool)
    found[np.unique(values, axis=0, return_index=True)[1]] = True
    return found


def _undominated(values: Values) -> Mask:
    """Whether no other row is better. Sorted like this, nothing is beaten by what comes after it."""
    found = np.zeros(len(values), dtype=bool)
    front = np.empty((0, values.shape[1]))
    for number in np.lexsort(-values.T[::-1]):
        one = values[number]
        if not ((front >= one).all(axis=1) & (front > one).any(axis=1)).any():
            found[number] = True
            front = np.vstack([front, one])
    return found


def _baselines(axes: Axes, baselines: Mapping[str, Mapping[str, float]], across: Quantity, up: Quantity) -> Values:
    found = []
    for number, (name, known) in enumerate(baselines.items()):
        missing = [one.name for one in (across, up) if one.name not in known]
        if missing:
            raise ConfigError(f"the baseline {name!r} has no {missing[0]!r}, which is an axis; it has {sorted(known)}")
        found.append((float(known[across.name]), float(known[up.name])))
        marker = _MARKERS[number % len(_MARKERS)]
        axes.scatter(
            *found[-1], s=44, marker=marker, color=INK, edgecolors="white", linewidths=0.6, zorder=3, label=name
        )
    return np.array(found, dtype=np.float64).reshape(-1, 2)
