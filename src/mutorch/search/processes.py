"""Candidates evaluated by processes of this machine."""

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import torch

from mutorch.errors import ConfigError, nearest
from mutorch.space import Architecture
from mutorch.utils import require

from .crew import CrewPool, News
from .evaluation import Evaluation
from .sending import save_evaluation, unpack
from .worker_process import FAILED, READY, InheritedJob, Job, StoredJob, work
from .workplace import Workplace

GRACE = 5.0
"""Seconds that an idle worker has to end by itself, and a killed one to be gone."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Evaluates in processes of this machine; `search(..., workers=4)` is `workers=Processes(4)`.

    A worker that ends by itself (killed, out of memory, a segmentation fault) is replaced, with a warning, and its trial is
    tried again. Workers end with the search, and with its process, whatever ends that.

    Args:
        count: how many.
        threads: with how many threads each of them computes.
        start: `"fork"` (workers have everything there is in this process, nothing is sent), `"spawn"` or `"forkserver"` (fresh
            processes; needs the extra `workers`; a script needs `if __name__ == "__main__":`). `"auto"` forks on Linux, unless
            a GPU is in use here or workers have several threads, neither of which survives a fork.
        retries: how often a trial whose worker ended is tried again before it is an error.
        timeout: seconds that a trial may take; the worker is ended then, and the trial has an error.
        devices: given out to the workers in turn; `worker_device()` is that of the one that evaluates.

    Errors:
        ConfigError: arguments that cannot be.
        WorkerError: from `search`, about what cannot be sent, or a trial that ends its workers.

    Example:
        >>> from mutorch.search import search_space
        >>> from mutorch.space import Decision, SearchSpace
        >>> space = SearchSpace([Decision("depth", (1, 2, 3))])
        >>> search_space(space, lambda a: a["depth"], num_trials=3, workers=Processes(2)).best.architecture
        {'depth': 3}
    """

    count: int
    threads: int = 1
    start: Literal["auto", "fork", "spawn", "forkserver"] = "auto"
    retries: int = 2
    timeout: float | None = None
    devices: Sequence[str | torch.device] | None = None

    def __post_init__(self) -> None:
        check_numbers(count=self.count, threads=self.threads, retries=self.retries, timeout=self.timeout)
        allowed = ("auto", *multiprocessing.get_all_start_methods())
        if self.start not in allowed:
            raise ConfigError(f"no start {self.start!r} of processes here; {nearest(self.start, allowed)}")
        if self.start == "fork" and self.threads > 1:
            raise ConfigError(f"threads={self.threads} hang in forked processes; take start='spawn', or threads=1")
        if self.start == "fork" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            raise ConfigError("a GPU that is in use here cannot be used in forked processes; take start='spawn'")
        if self.devices is not None and (isinstance(self.devices, str) or not self.devices):
            raise ConfigError(f'devices is a list such as ["cuda:0", "cuda:1"], got {self.devices!r}')
        for device in self.devices or ():
            _check_device(device)

    def __call__(self, evaluation: Evaluation) -> CrewPool:
        """The pool, for `search`; no process is started before there is something to evaluate."""
        crew = ProcessCrew(evaluation, multiprocessing.get_context(self._start_method()), self.threads, self.devices)
        return CrewPool(crew, self.count, retries=self.retries, timeout=self.timeout)

    def _start_method(self) -> str:
        if self.start != "auto":
            return self.start
        on_gpu = torch.cuda.is_initialized() or any(torch.device(d).type != "cpu" for d in self.devices or ())  # type: ignore[no-untyped-call]
        return "fork" if sys.platform == "linux" and self.threads == 1 and not on_gpu else "spawn"


class ProcessCrew:
    """A `Crew` of processes, each at the end of a link of its own, so that one that is killed breaks no other's."""

    shortage = (
        "a script that starts processes needs `if __name__ == '__main__':` around its calls; what evaluate imports must be "
        "there in a fresh process"
    )

    def __init__(
        self, evaluation: Evaluation, context: BaseContext, threads: int, devices: Sequence[str | torch.device] | None
    ) -> None:
        self._evaluation = evaluation
        self._context: Any = context  # the stubs of BaseContext have no Process
        self._threads, self._devices = threads, devices
        self._job: Job | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._processes: dict[int, BaseProcess] = {}
        self._links: dict[int, connection.Connection] = {}
        self._busy: set[int] = set()

    def start(self, worker: int) -> None:
        job = self._job = self._job or self._make_job()
        device = None if self._devices is None else str(self._devices[worker % len(self._devices)])
        ours, theirs = self._context.Pipe()
        inherited = [ours, *self._links.values()] if isinstance(job, InheritedJob) else []
        place = Workplace(worker, device, self._threads)
        process = self._context.Process(
            target=work, args=(theirs, inherited, job, place), name=f"mutorch worker {worker}", daemon=False
        )
        with _no_interrupt(), warnings.catch_warnings():
            # Python warns of forks beside threads; torch's own are not used in a worker that has one thread.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            process.start()
            self._processes[worker], self._links[worker] = process, ours
        theirs.close()

    def send(self, worker: int, index: int, architecture: Architecture) -> None:
        self._busy.add(worker)
        with suppress(OSError):  # it ended; `wait` says so
            self._links[worker].send_bytes(pickle.dumps((index, dict(architecture))))

    def wait(self, seconds: float | None) -> list[News]:
        workers: dict[Any, int] = {link: worker for worker, link in self._links.items()}
        workers |= {process.sentinel: worker for worker, process in self._processes.items()}
        ready = connection.wait(list(workers), seconds)
        return [self._news(worker) for worker in sorted({workers[one] for one in ready})]

    def kill(self, worker: int) -> None:
        process, link = self._processes.pop(worker), self._links.pop(worker)
        self._busy.discard(worker)
        link.close()
        process.kill()
        process.join()
        process.close()

    def close(self) -> None:
        for worker, link in self._links.items():
            link.close()
            if worker in self._busy:
                self._processes[worker].terminate()
        try:
            deadline = time.monotonic() + GRACE
            for process in self._processes.values():
                process.join(max(deadline - time.monotonic(), 0))
        finally:  # also after a second Ctrl-C
            for worker in list(self._processes):
                self.kill(worker)
            if self._folder is not None:
                self._folder.cleanup()

    def _news(self, worker: int) -> News:
        link = self._links[worker]
        try:
            if not link.poll():
                return self._ended(worker)
            message = link.recv_bytes()
        except (EOFError, OSError):  # also in the midst of a message
            return self._ended(worker)
        if message == READY:
            return News(worker)
        if message.startswith(FAILED):
            self.kill(worker)
            return News(worker, ended=message.removeprefix(FAILED).decode())
        self._busy.discard(worker)
        return News(worker, unpack(message))

    def _ended(self, worker: int) -> News:
        process = self._processes[worker]
        process.join(GRACE)
        code = process.exitcode
        self.kill(worker)
        if code is None:
            return News(worker, ended="closing its link")
        return News(worker, ended=f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")

    def _make_job(self) -> Job:
        if self._context.get_start_method() == "fork":
            return InheritedJob(self._evaluation)
        cloudpickle = require("cloudpickle", extra="workers")
        self._folder = tempfile.TemporaryDirectory(prefix="mutorch-workers-")
        path = Path(self._folder.name) / "evaluation.pt"
        fix = "or take start='fork', where nothing is sent" if hasattr(os, "fork") else "or leave it out"
        save_evaluation(self._evaluation, path, cloudpickle, fix)
        return StoredJob(path)


def check_numbers(*, count: int, threads: int | None, retries: int, timeout: float | None) -> None:
    """Nothing, if these can be numbers of workers.

    Errors:
        ConfigError: says which one cannot.
    """
    for name, value, least in (("count", count, 1), ("threads", threads, 1), ("retries", retries, 0)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ConfigError(f"{name} of workers must be a whole number of at least {least}, got {value!r}")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0):
        raise ConfigError(f"timeout is seconds, more than 0, or None, got {timeout!r}")


def _check_device(device: str | torch.device) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ConfigError(f"no device {device!r}; {nearest(device, ('cpu', 'cuda:0', 'mps', 'xpu'))}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"the device {str(device)!r} is not available here")


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Without Ctrl-C, in this thread and in a process that is started meanwhile until it allows it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
