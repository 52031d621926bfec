"""A search as it goes, on the terminal."""

import atexit
import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from mutorch.search import Trial
from mutorch.utils import require

from .panel import SearchPanel


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

    Attributes:
        panel: what it shows.

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
        self._wait = every if self._console.is_terminal else line_every
        self._live: Any = None
        self._shown: float | None = None
        self._is_new = False
        self.panel = SearchPanel(objectives, clock=clock)

    def __call__(self, trial: Trial, num_trials: int) -> None:
        """Take a trial in; draws at most every so many seconds."""
        self.panel(trial, num_trials)
        self._is_new = True
        now = self._clock()
        if self._shown is None:
            self._shown = -math.inf if self._console.is_terminal else now
        if now - self._shown >= self._wait or self.panel.done >= num_trials:
            self._shown = now
            self._show()
        if self.panel.done >= num_trials:
            self.close()

    def close(self) -> None:
        """Show the last state, and give the terminal back; nothing if that was done."""
        if self._is_new:
            self._show()
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

    def _show(self) -> None:
        self._is_new = False
        if not self._console.is_terminal:
            self._console.print(self.panel.status(), markup=False, soft_wrap=True)
            return
        if self._live is None:
            self._live = require("rich.live", extra="cli").Live(console=self._console, auto_refresh=False)
            self._live.start()
            atexit.register(self.close)  # a terminal without a cursor is what a search that nobody closed would leave
        self._live.update(self.panel, refresh=True)
