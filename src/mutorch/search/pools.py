"""Where candidates are evaluated."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from mutorch.errors import ConfigError
from mutorch.space import Architecture

from .evaluation import Evaluation, Outcome
from .log import Log
from .processes import Processes
from .ranks import Ranks, are_many


class Pool(Protocol):
    """Evaluates what is submitted, in any order; a context manager that ends what it started.

    A search submits several trials before it waits for the first; it never has more than `ahead` under way.
    """

    def submit(self, index: int, architecture: Architecture) -> None:
        """Begin to evaluate a trial, or note that it is to be evaluated. Does not wait."""

    def result(self) -> Outcome:
        """Wait for a trial that was submitted, any of them; errors of the evaluation are in the outcome."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


PoolFactory = Callable[[Evaluation], Pool]
"""Makes a pool of what is to be done for each trial."""


class InProcess:
    """Evaluates here, one trial after the other, when a result is asked for."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._waiting: deque[tuple[int, Architecture]] = deque()

    def submit(self, index: int, architecture: Architecture) -> None:
        self._waiting.append((index, architecture))

    def result(self) -> Outcome:
        return self._evaluation(*self._waiting.popleft())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.clear()


def make_pool(workers: int | PoolFactory, evaluation: Evaluation, ahead: int) -> Pool:
    """The pool that `workers` of `search` says; a warning where it has more workers than trials are under way.

    Errors:
        ConfigError: neither a number of processes nor a function that makes a pool; processes for each of several ranks.
    """
    if not callable(workers) and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
        raise ConfigError(
            f"workers is a number of processes (0: evaluate in this one), or a function that makes a pool, got {workers!r}"
        )
    if not callable(workers) and workers > 0 and are_many():
        raise ConfigError(
            f"workers={workers} under torchrun, where each rank evaluates its share already: leave workers at 0; for a search of "
            f"one rank alone, give workers=Processes({workers}), from mutorch.search"
        )
    here = Ranks if are_many() else InProcess
    factory = workers if callable(workers) else Processes(workers) if workers else here
    pool = factory(evaluation)
    count = getattr(pool, "count", 1)
    if count > ahead:
        warnings.warn(
            f"there are {count} workers, and no more than ahead={ahead} trials are under way at once: {count - ahead} have "
            f"nothing to do; give ahead={count}, which makes it another search, with other results",
            stacklevel=4,
        )
    return pool


def open_log(pool: Pool, open_: Callable[[], Log], run: Mapping[str, Any]) -> Log:
    """The log of a search, opened here, or by rank 0 for all ranks."""
    return pool.open_log(open_, run) if isinstance(pool, Ranks) else open_()


def is_first(pool: Pool) -> bool:
    """Whether this process speaks for the search: all do but ranks other than 0."""
    return not isinstance(pool, Ranks) or pool.rank == 0


def deadline(pool: Pool, seconds: float | None) -> Callable[[], bool]:
    """Whether that many seconds from now are over; ranks go by the clock of rank 0."""
    if seconds is None:
        return lambda: False
    end = time.monotonic() + seconds
    if isinstance(pool, Ranks):
        return lambda: pool.agree(time.monotonic() >= end)
    return lambda: time.monotonic() >= end
