"""A search as it goes, on the terminal."""

import atexit
import math
import time
from bisect import insort
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from mutorch.search import Trial
from mutorch.search.dominance import dominates, hypervolume
from mutorch.search.plots.drawing import number_text
from mutorch.utils import require

from .tables import architecture_text

_BLOCKS = "▁▂▃▄▅▆▇█"
_TOP = 5
_WIDTH = 40


class LiveView:
    """Shows a search on the terminal: best so far, the top five, speed, time left, progress, failures. Needs the extra `cli`.

    A listener for `on_trial`, and a context manager, which leaves the terminal as it should be also after an error. Where the output is
    no terminal, as in a file or in CI, it prints a line now and then instead.

    Args:
        objectives: their names, for the head of the table.
        every: seconds between two pictures.
        line_every: seconds between two lines where the output is no terminal.
        console: of rich; that of the standard output unless given.
        clock: seconds that only grow.

    Example:
        >>> from mutorch.search import search_space
        >>> from mutorch.space import Decision, SearchSpace
        >>> space = SearchSpace([Decision("depth", (1, 2, 3))])
        >>> with LiveView(clock=lambda: 0.0) as view:
        ...     history = search_space(space, lambda a: a["depth"], num_trials=3, on_trial=view)
        3/3 trials, best 3 (trial 2), ...
    """

    def __init__(
        self,
        objectives: Sequence[str] = (),
        *,
        every: float = 0.25,
        line_every: float = 10.0,
        console: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or require("rich.console", extra="cli").Console(highlight=False)
        self._clock = clock
        self._objectives = tuple(objectives)
        self._wait = every if self._console.is_terminal else line_every
        self._live: Any = None
        self._begun: float | None = None
        self._shown = -math.inf
        self._is_new = False
        self.done = self.total = self.failed = self.infeasible = 0
        self._first = 0
        self.top: list[Trial] = []
        self._best: list[float] = []
        self._front: list[tuple[float, ...]] = []
        self._floor: list[float] = []

    def __call__(self, trial: Trial, num_trials: int) -> None:
        """Take a trial in; draws at most every so many seconds."""
        now = self._clock()
        if self._begun is None:
            self._begun, self._first = now - trial.seconds, trial.index
            self._shown = now if not self._console.is_terminal else -math.inf
        self.done, self.total, self._is_new = trial.index + 1, num_trials, True
        self.failed += trial.error is not None
        self.infeasible += trial.error is None and not trial.is_feasible
        insort(self.top, trial, key=lambda one: one.key)
        del self.top[_TOP:]
        self._best.append(self.top[0].score if self.top[0].is_feasible else math.nan)
        if len(trial.values) > 1 and trial.is_feasible and all(map(math.isfinite, trial.values)):
            self._add_to_front(trial.values)
        if now - self._shown >= self._wait or self.done >= num_trials:
            self._shown = now
            self._show(now)
        if self.done >= num_trials:
            self.close()

    def close(self) -> None:
        """Show the last state, and give the terminal back; nothing if that was done."""
        if self._is_new and self._begun is not None:
            self._show(self._clock())
        if self._live is not None:
            self._live.stop()
            self._live = None
            atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __rich__(self) -> Any:
        """What is shown, for a layout of yours."""
        table = require("rich.table", extra="cli").Table
        grid = table.grid(padding=(0, 1))
        grid.add_row(self._status(self._clock()))
        if self.top:
            grid.add_row(f"{sparkline(self._best, _WIDTH)}  best so far")
            grid.add_row(self._leaders(table))
        return grid

    @property
    def front_size(self) -> int:
        """How many trials no other beats in everything, where there are several objectives."""
        return len(self._front)

    def _show(self, now: float) -> None:
        self._is_new = False
        if not self._console.is_terminal:
            self._console.print(self._status(now), markup=False, soft_wrap=True)
            return
        if self._live is None:
            self._live = require("rich.live", extra="cli").Live(console=self._console, auto_refresh=False)
            self._live.start()
            atexit.register(self.close)  # a terminal without a cursor is what a search that nobody closed would leave
        self._live.update(self.__rich__(), refresh=True)

    def _status(self, now: float) -> str:
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
        has_costs = any(trial.costs is not None for trial in self.top)
        names = self._objectives or ("score", *(f"objective {n + 2}" for n in range(len(self.top[0].values) - 1)))
        table = make(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("trial", *(name.removeprefix("-") for name in names), *(("macs", "params") if has_costs else ())):
            table.add_column(name, justify="right")
        table.add_column("architecture", no_wrap=True, overflow="ellipsis")
        for trial in self.top:
            values = [
                number_text(-value if name.startswith("-") else value)
                for name, value in zip(names, trial.values, strict=False)
            ]
            costs = [] if not has_costs else ["", ""] if trial.costs is None else _priced(trial)
            text = require("rich.text", extra="cli").Text(
                architecture_text(trial.architecture, {}), overflow="ellipsis"
            )
            table.add_row(str(trial.index), *values, *costs, text)
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


def _priced(trial: Trial) -> list[str]:
    return [] if trial.costs is None else [number_text(trial.costs.macs), number_text(trial.costs.params)]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
