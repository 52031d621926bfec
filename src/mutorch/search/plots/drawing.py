"""How all figures look: nothing that covers points, quiet axes, numbers that can be read."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mutorch.space import Choice
from mutorch.utils import require

from .quantities import Quantity, Values, interesting

Figure = Any
"""A `matplotlib.figure.Figure`; matplotlib is optional."""
Axes = Any

GREY, BLUE, SKY, ORANGE, RED, INK = "#9aa5b1", "#1864ab", "#74a9d8", "#d9480f", "#c92a2a", "#343a40"
MANY = 400
"""From here on, points are drawn small and as an image inside of a vector graphic, which otherwise grows with them."""


def new_figure(width: float = 8.0, height: float = 4.8) -> Figure:
    """An empty figure, with no part of pyplot's global state."""
    return require("matplotlib.figure", extra="report").Figure(figsize=(width, height), layout="constrained")


def quiet(axes: Axes) -> None:
    """Two spines and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def legend_above(figure: Figure, axes: Axes, columns: int = 3) -> None:
    """The legend above the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        count = min(columns, len(handles))
        figure.legend(
            handles, labels, loc="outside upper left", ncols=count, frameon=False, fontsize=8, columnspacing=1.5
        )


def note(axes: Axes, text: str) -> None:
    """A line in the legend that stands for nothing that is drawn."""
    axes.plot([], [], linestyle="none", label=text)


def points(axes: Axes, x: Values, y: Values, *, size: float, **options: Any) -> None:
    """Dots, smaller and as an image where there are many."""
    many = len(x) > MANY
    axes.scatter(x, y, s=size / 2 if many else size, rasterized=many, **options)


def scale(axes: Axes, which: str, one: Quantity, values: Values, keep: Values) -> int:
    """Label an axis, and bound it to what is of interest.

    A few values far away from all others would make the rest a line; what is left out is at the worse end, and never in `keep`.

    Returns:
        How many values are outside.
    """
    axis = getattr(axes, f"{which}axis")
    getattr(axes, f"set_{which}label")(one.label, fontsize=9)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0
    if finite.min() > 0 and finite.max() / finite.min() > 50 and one.sign < 0:
        getattr(axes, f"set_{which}scale")("log")
    elif np.abs(finite).max() >= 10_000:
        axis.set_major_formatter(require("matplotlib.ticker", extra="report").EngFormatter(sep=""))
    low, high = interesting(finite, one.sign, keep)
    if low == finite.min() and high == finite.max():
        return 0
    margin = 0.05 * (high - low)
    getattr(axes, f"set_{which}lim")(low - margin, high + margin)
    return int(((finite < low) | (finite > high)).sum())


def short(text: str, length: int = 24) -> str:
    """A long name without its middle: the ends of paths tell most."""
    if len(text) <= length:
        return text
    tail = (length - 1) * 2 // 3
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


def shortened(names: Sequence[str], length: int = 24) -> list[str]:
    """Long names of one figure without so much of what they all have in common.

    Example:
        >>> shortened(["backbone.stages.0.conv.out_channels", "backbone.stages.1.conv.out_channels"])
        ['…0.conv.out_channels', '…1.conv.out_channels']
    """
    if len(names) < 2 or max(map(len, names)) <= length:
        return [short(name, length) for name in names]
    parts = [name.split(".") for name in names]
    fewest = min(map(len, parts)) - 1
    head = next((n for n in range(fewest) if len({part[n] for part in parts}) > 1), fewest)
    tail = next((n for n in range(fewest - head) if len({part[-1 - n] for part in parts}) > 1), fewest - head)

    def without(head: int, tail: int) -> list[str]:
        ends = "…" if head else "", "…" if tail else ""
        return [ends[0] + ".".join(part[head : len(part) - tail]) + ends[1] for part in parts]

    while (head or tail) and (closer := [pair for pair in ((head, tail - 1), (head - 1, tail)) if min(pair) >= 0]):
        fitting = [pair for pair in closer if max(map(len, without(*pair))) <= length]
        if not fitting:
            break
        head, tail = fitting[0]
    return [short(name, length) for name in without(head, tail)]


def choice_text(choice: Choice, length: int = 16) -> str:
    """A choice, as short as it can be read; long lists of bools as ones and zeros."""
    if isinstance(choice, list) and choice and all(isinstance(one, bool) for one in choice):
        return short("".join("1" if one else "0" for one in choice), length)
    if isinstance(choice, list):
        return short(" ".join(str(one) for one in choice), length)
    if isinstance(choice, float):
        return f"{choice:.4g}"
    return short(str(choice), length)


def number_text(value: float) -> str:
    """A number with four digits, and a suffix where it is large."""
    if not math.isfinite(value) or abs(value) >= 1e15:
        return f"{value:.4g}"
    for factor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            return f"{value / (1e3 if suffix == 'k' else factor):.4g}{suffix}"
    return f"{value:.4g}"
