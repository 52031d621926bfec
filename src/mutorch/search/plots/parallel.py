"""All trials at once: a line each, through the decisions that matter most, costs and objectives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mutorch.errors import StateError, nearest
from mutorch.search.trial import Trial
from mutorch.space import SearchSpace
from mutorch.space.decision import key
from mutorch.utils import require

from .drawing import INK, ORANGE, Axes, Figure, choice_text, new_figure, number_text, short, shortened
from .importance import choices_of, importance, is_active
from .quantities import Quantity, Searched, Values, cost_names, interesting, objectives_of, quantity

_COSTS = ("macs", "params", "latency_ms")
_TICKS = 14
_MOST = 2000
"""Of more trials, the best quarter of so many is drawn, and others evenly spaced."""
_LINES = 200
"""From here on, lines are an image inside of a vector graphic."""


@dataclass(frozen=True, slots=True)
class Line:
    """One upright line of the figure.

    Attributes:
        label: above it.
        places: where each trial crosses it, 0 to 1; not-a-number where it does not.
        ticks: texts beside it, with their places.
    """

    label: str
    places: Values
    ticks: list[tuple[float, str]]


def parallel_figure(
    history: Searched, *, names: Sequence[str] | None = None, num_decisions: int = 6, space: SearchSpace | None = None
) -> Figure:
    """A line for each trial, coloured by score, through decisions, costs and objectives; better is up, the winner orange.

    Args:
        names: the decisions, costs, metrics and objectives to draw, in order; unless given, the decisions that explain most of the
            score, macs, params and measured latency, and the objectives.
        num_decisions: how many decisions are drawn where no names are given.
        space: of the search, for the order of choices.

    Errors:
        StateError: no trial has a finite score, or none has what is named.

    Example:
        >>> from mutorch.search import History, Trial
        >>> figure = parallel_figure(History([Trial(i, {"op": "ab"[i % 2]}, i) for i in range(4)]))
        >>> [text.get_text() for text in figure.axes[0].texts][0]
        'op'
    """
    score = objectives_of(history)[0]
    values = score.of(history.trials)
    holds = np.array([trial.is_feasible for trial in history.trials], dtype=bool)
    if not np.isfinite(values).any():
        raise StateError("no trial has a finite score")
    lines = [_line(history, name, space) for name in names or _names(history, num_decisions, space)]
    figure = new_figure(max(6.0, 1.5 * len(lines) + 1.5), 4.8)
    axes = figure.subplots()
    _draw(figure, axes, lines, score, values, holds)
    winner = history.best.index
    best = next(number for number, trial in enumerate(history.trials) if trial.index == winner)
    path = [line.places[best] for line in lines]
    axes.plot(range(len(lines)), path, color=ORANGE, linewidth=2.4, marker="o", markersize=4, zorder=4)
    labels = _labels(history, lines)
    for number, line in enumerate(lines):
        _upright(axes, number, line, labels[number])
    axes.set(xlim=(-0.35, len(lines) - 0.5), ylim=(-0.12, 1.18))
    axes.axis("off")
    return figure


def _names(history: Searched, num_decisions: int, space: SearchSpace | None) -> list[str]:
    weights = importance(history, space)
    decisions = sorted(weights, key=lambda name: -weights[name])[:num_decisions]
    order = list(weights)
    aims = [one.name for one in objectives_of(history)]
    costs = [name for name in _COSTS if name in cost_names(history.trials) and name not in aims]
    return [*sorted(decisions, key=order.index), *costs, *reversed(aims)]


def _labels(history: Searched, lines: Sequence[Line]) -> list[str]:
    """What stands above the lines: decisions without what their names have in common."""
    decisions = {name for trial in history.trials for name in trial.architecture}
    own = [line.label for line in lines if line.label in decisions]
    known = dict(zip(own, shortened(own, 20), strict=True)) if own else {}
    return [known.get(line.label, short(line.label, 20)) for line in lines]


def _line(history: Searched, name: str, space: SearchSpace | None) -> Line:
    trials = history.trials
    if any(name in trial.architecture for trial in trials):
        return _decision_line(trials, name, space)
    try:
        return _number_line(trials, quantity(history, name))
    except StateError as error:
        known = [*dict.fromkeys(decision for trial in trials for decision in trial.architecture)]
        raise StateError(f"{error}; or one of the decisions: {nearest(name, known)}") from error


def _decision_line(trials: Sequence[Trial], name: str, space: SearchSpace | None) -> Line:
    choices = choices_of(name, trials, space)
    span = max(len(choices) - 1, 1)
    numbers = {key(choice): number for number, choice in enumerate(choices)}
    places = np.full(len(trials), np.nan)
    for row, trial in enumerate(trials):
        if is_active(name, trial.architecture, space):
            # A little apart, always alike, so that it shows how many pass.
            apart = 0.035 * (((trial.index * 0.6180339887) % 1) - 0.5)
            places[row] = numbers[key(trial.architecture[name])] / span + apart
    every = -(-len(choices) // _TICKS)
    ticks = [(number / span, choice_text(choice, 12)) for number, choice in enumerate(choices)]
    return Line(name, places, ticks[::every])


def _number_line(trials: Sequence[Trial], one: Quantity) -> Line:
    values = one.of(trials)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return Line(one.name, values, [])
    low, high = interesting(finite, one.sign, np.array([]))
    span = (high - low) or 1.0
    places = np.clip((values - low) / span, 0, 1)
    inner = np.linspace(low, high, 4) if high > low else np.array([low])
    ticks = [((value - low) / span, number_text(float(value))) for value in inner]
    if one.sign < 0:
        places, ticks = 1 - places, [(1 - place, text) for place, text in ticks]
    return Line(one.name, np.where(np.isfinite(values), places, np.nan), ticks)


def _draw(figure: Figure, axes: Axes, lines: Sequence[Line], score: Quantity, values: Values, holds: Any) -> None:
    collections = require("matplotlib.collections", extra="report")
    finite = np.isfinite(values)
    low, high = interesting(values[finite], score.sign, np.array([]))
    worst_first = np.argsort(np.where(finite, score.sign * values, -np.inf), kind="stable")
    order = _thinned([int(number) for number in worst_first if finite[number]])
    if len(order) < finite.sum():
        axes.text(
            0, -0.1, f"{len(order)} of {finite.sum()} trials drawn, the best ones among them", fontsize=8, color=INK
        )
    paths = np.array([line.places for line in lines]).T
    across = np.arange(len(lines))
    many = len(order) > _LINES
    for chosen, options in (
        (~holds, {"colors": "#e0a3a3", "linewidths": 0.5}),
        (holds, {"cmap": "viridis", "linewidths": 0.9}),
    ):
        picked = [number for number in order if chosen[number]]
        if not picked:
            continue
        segments = [np.column_stack([across, paths[number]]) for number in picked]
        drawn = collections.LineCollection(segments, alpha=0.35 if many else 0.65, rasterized=many, **options)
        if "cmap" in options:
            drawn.set_array(values[picked])
            drawn.set_clim(low, high if high > low else low + 1)
        axes.add_collection(drawn)
        if "cmap" in options:
            bar = figure.colorbar(drawn, ax=axes, aspect=30, pad=0.01, shrink=0.85)
            bar.set_label(score.label, fontsize=9)
            bar.solids.set_alpha(1)
            bar.ax.tick_params(labelsize=8)


def _thinned(worst_first: list[int]) -> list[int]:
    if len(worst_first) <= _MOST:
        return worst_first
    best = worst_first[-_MOST // 4 :]
    rest = worst_first[: -_MOST // 4]
    return [*rest[:: -(-len(rest) // (_MOST - len(best)))], *best]


def _upright(axes: Axes, number: int, line: Line, label: str) -> None:
    axes.plot([number, number], [0, 1], color=INK, linewidth=0.8, zorder=3)
    # Names of neighbours at two heights, so that long ones do not meet.
    axes.text(number, 1.07 + 0.07 * (number % 2), label, ha="center", va="bottom", fontsize=9, fontweight="bold")
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for place, text in line.ticks:
        axes.text(number + 0.04, place, text, ha="left", va="center", fontsize=7.5, color=INK, bbox=box, zorder=5)
