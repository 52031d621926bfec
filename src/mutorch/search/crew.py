"""A pool of workers that may end at any time: who is free, who has which trial, what is tried again."""

import time
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from mutorch.errors import StateError, TrialTimeoutError, WorkerError
from mutorch.space import Architecture

from .evaluation import Outcome


@dataclass(frozen=True, slots=True)
class News:
    """What a worker let know: that it is ready (neither of the two), an outcome, or how it ended."""

    worker: int
    outcome: Outcome | None = None
    ended: str | None = None


class Crew(Protocol):
    """Workers by number, each with one trial at a time; what `CrewPool` needs of them."""

    def start(self, worker: int) -> None:
        """Begin to start a worker; news tell when it is ready."""

    def send(self, worker: int, index: int, architecture: Architecture) -> None:
        """Give a trial to a worker that is ready; that it has ended meanwhile is told by news."""

    def wait(self, seconds: float | None) -> Sequence[News]:
        """What is new, as soon as there is something; nothing when the time is over."""

    def kill(self, worker: int) -> None:
        """End a worker at once; no news come of it."""

    def close(self) -> None:
        """End all workers: those without a trial kindly, the others at once."""

    @property
    def shortage(self) -> str:
        """What to do where no worker starts."""


@dataclass(slots=True)
class _Task:
    index: int
    architecture: Architecture
    ends: int = 0
    """How many workers ended with it."""
    since: float = 0.0

    def __str__(self) -> str:
        return f"trial {self.index} ({self.architecture})"


class CrewPool:
    """A `Pool` of a crew. Workers are started when there is something for them to do.

    Args:
        crew: does the work.
        count: how many workers there may be.
        retries: how often a trial whose worker ended is tried again.
        timeout: seconds that a trial may take.
        start_timeout: seconds after which one worker must have started.
    """

    def __init__(
        self, crew: Crew, count: int, *, retries: int = 2, timeout: float | None = None, start_timeout: float = 600.0
    ) -> None:
        self.count = count
        self._crew = crew
        self._retries, self._timeout, self._start_timeout = retries, timeout, start_timeout
        self._waiting: deque[_Task] = deque()
        self._done: deque[Outcome] = deque()
        self._starting: dict[int, float] = {}  # since when
        self._idle: set[int] = set()
        self._busy: dict[int, _Task] = {}
        self._failed_starts = 0

    def submit(self, index: int, architecture: Architecture) -> None:
        self._waiting.append(_Task(index, architecture))
        self._assign()

    def result(self) -> Outcome:
        while not self._done:
            if not self._waiting and not self._busy:
                raise StateError("no trial was submitted that has no result yet")
            for news in self._crew.wait(self._patience()):
                self._hear(news)
            self._end_overdue()
            self._assign()
        return self._done.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._crew.close()

    def _assign(self) -> None:
        while self._waiting and self._idle:
            worker, task = min(self._idle), self._waiting.popleft()
            self._idle.remove(worker)
            self._busy[worker] = task
            task.since = time.monotonic()
            self._crew.send(worker, task.index, task.architecture)
        for worker in range(self.count):
            if len(self._starting) >= len(self._waiting):
                return
            if worker not in self._starting and worker not in self._busy:  # none is idle here
                self._starting[worker] = time.monotonic()
                self._crew.start(worker)

    def _hear(self, news: News) -> None:
        if news.ended is not None:
            self._replace(news.worker, news.ended)
            return
        if news.outcome is not None:
            del self._busy[news.worker]
            self._done.append(news.outcome)
        else:
            del self._starting[news.worker]
            self._failed_starts = 0
        self._idle.add(news.worker)

    def _replace(self, worker: int, how: str) -> None:
        """Forget a worker that ended; `_assign` starts another one if there is something to do."""
        task = self._busy.pop(worker, None)
        if task is not None:
            self._again(worker, task, how)
            return
        self._idle.discard(worker)
        if self._starting.pop(worker, None) is not None:
            self._failed_starts += 1
            if self._failed_starts > self._retries:
                raise WorkerError(
                    f"no worker could be started, {self._failed_starts} times: {how}; {self._crew.shortage}"
                )
        warnings.warn(f"worker {worker} ended without a trial: {how}; another one is started if needed", stacklevel=4)

    def _again(self, worker: int, task: _Task, how: str) -> None:
        """Try a trial again whose worker ended, or give it up."""
        task.ends += 1
        if task.ends > self._retries:
            error = WorkerError(
                f"{task} ended its worker {task.ends} times, the last time by {how}; if memory ran out, take fewer workers "
                "or smaller batches; run evaluate on this architecture with workers=0 to see it; on_error='record' goes on "
                "without it"
            )
            self._done.append(Outcome(task.index, None, time.monotonic() - task.since, error))
            return
        self._waiting.appendleft(task)
        warnings.warn(
            f"worker {worker} ended with {task}: {how}; it is tried again ({task.ends} of {self._retries})",
            stacklevel=5,
        )

    def _end_overdue(self) -> None:
        now = time.monotonic()
        if self._starting and not self._idle and not self._busy:
            waited = now - min(self._starting.values())
            if waited > self._start_timeout:
                raise WorkerError(f"no worker was ready after {waited:.0f} seconds; {self._crew.shortage}")
        if self._timeout is None:
            return
        for worker, task in list(self._busy.items()):
            if now - task.since > self._timeout:
                self._crew.kill(worker)
                del self._busy[worker]
                error = TrialTimeoutError(
                    f"{task} took longer than {self._timeout:g} seconds, and its worker was ended"
                )
                self._done.append(Outcome(task.index, None, now - task.since, error))

    def _patience(self) -> float | None:
        """Seconds until something may be overdue."""
        now, limits = time.monotonic(), []
        if self._timeout is not None:
            limits += [task.since + self._timeout for task in self._busy.values()]
        if not self._idle and not self._busy:
            limits += [since + self._start_timeout for since in self._starting.values()]
        return max(min(limits) - now, 0.0) + 0.001 if limits else None
