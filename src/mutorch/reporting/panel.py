"""What is shown of a search while it goes on."""

import math
import time
from bisect import insort
from collections.abc import Callable, Sequence
from typing import Any

from mutorch.search import Trial
from mutorch.search.dominance import dominates, hypervolume
from mutorch.search.plots.drawing import number_text
from mutorch.search.plots.quantities import LARGEST
from mutorch.utils import require

from .tables import architecture_text

_BLOCKS = "▁▂▃▄▅▆▇█"
_TOP = 5
_WIDTH = 40
_LETTERS = 66
_COSTS = ("macs", "params")


class SearchPanel:
    """The state of a search: best so far, the top five, speed, time left, progress, failures. A renderable of rich.

    A listener for `on_trial`, to be placed in a layout of yours; `LiveView` shows one by itself.

    Args:
        objectives: their names, for the head of the table.
        clock: seconds that only grow.
    """

    def __init__(self, objectives: Sequence[str] = (), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._objectives = tuple(objectives)
        self._clock = clock
        self._begun: float | None = None
        self._first = 0
        self.done = self.total = self.failed = self.infeasible = 0
        self.top: list[Trial] = []
        self._best: list[float] = []
        self._front: list[tuple[float, ...]] = []
        self._floor: list[float] = []

    def __call__(self, trial: Trial, num_trials: int) -> None:
        """Take a trial in."""
        if self._begun is None:
            self._begun, self._first = self._clock() - trial.seconds, trial.index
        self.done, self.total = trial.index + 1, num_trials
        self.failed += trial.error is not None
        self.infeasible += trial.error is None and not trial.is_feasible
        insort(self.top, trial, key=lambda one: one.key)
        del self.top[_TOP:]
        self._best.append(self.top[0].score if self.top[0].is_feasible else math.nan)
        if len(trial.values) > 1 and trial.is_feasible and max(map(abs, trial.values)) <= LARGEST:
            self._add_to_front(trial.values)

    @property
    def front_size(self) -> int:
        """How many trials no other beats in everything, where there are several objectives."""
        return len(self._front)

    def __rich__(self) -> Any:
        table = require("rich.table", extra="cli").Table
        grid = table.grid(padding=(0, 1))
        grid.add_row(self.status())
        if self.top:
            grid.add_row(f"{sparkline(self._best, _WIDTH)}  best so far")
            grid.add_row(self._leaders(table))
        return grid

    def status(self) -> str:
        """All of it in a line."""
        now = self._clock()
        parts = [f"{self.done}/{self.total} trials"]
        if self.top:
            best = self.top[0]
            parts.append(f"best {number_text(best.score)} (trial {best.index})")
        took = 0.0 if self._begun is None else now - self._begun
        if took > 0:
            speed = (self.done - self._first) / took
            parts.append(f"{number_text(speed)}/s")
            if self.done < self.total:
                parts.append(f"{_duration((self.total - self.done) / speed)} left")
        if self._front:
            parts.append(
                f"front of {len(self._front)}, hypervolume {number_text(hypervolume(self._front, self._floor))}"
            )
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.infeasible:
            parts.append(f"{self.infeasible} break constraints")
        return ", ".join(parts)

    def _leaders(self, make: Any) -> Any:
        top = list(self.top)  # it may be drawn by another thread
        names = self._objectives or ("score", *(f"objective {n + 2}" for n in range(len(top[0].values) - 1)))
        escape = require("rich.markup", extra="cli").escape
        plain = [name.removeprefix("-") for name in names]
        costs = [name for name in _COSTS if name not in plain and any(trial.costs is not None for trial in top)]
        table = make(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("trial", *plain, *costs):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("architecture")
        for trial in top:
            values = [
                number_text(-value if name.startswith("-") else value)
                for name, value in zip(names, trial.values, strict=False)
            ]
            priced = ["" if trial.costs is None else number_text(trial.costs[name]) for name in costs]
            text = escape(_cut(architecture_text(trial.architecture, top[0].architecture)))
            table.add_row(str(trial.index), *values, *priced, text)
        return table

    def _add_to_front(self, values: tuple[float, ...]) -> None:
        self._floor = [min(pair) for pair in zip(self._floor or values, values, strict=True)]
        if not any(one == values or dominates(one, values) for one in self._front):
            self._front = [*(one for one in self._front if not dominates(values, one)), values]


def sparkline(values: Sequence[float], width: int = _WIDTH) -> str:
    """Numbers as small bars of text, the last of each stretch where there are more than fit; a gap where there is none.

    Example:
        >>> sparkline([1, 1, 2, 3, 5, 8], 6)
        '▁▁▂▃▅█'
    """
    shown = list(values)
    if len(shown) > width:
        shown = [shown[(number + 1) * len(shown) // width - 1] for number in range(width)]
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return " " * len(shown)
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    highest = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round((value - low) / span * highest)] if math.isfinite(value) else " " for value in shown)


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
