"""What a worker process does, from its first line to its last."""

import os
import pickle
import shutil
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any, Protocol

from mutorch.utils import require

from .evaluation import Evaluation
from .sending import load_evaluation, pack
from .workplace import Workplace, take_place

READY = b"ready"
FAILED = b"failed "


class Job(Protocol):
    """How a worker comes by the evaluation."""

    def open(self, place: Workplace) -> Evaluation:
        """The evaluation, in the worker."""

    def abandon(self) -> None:
        """Clear up: the process that would have done so is gone."""

    @property
    def pickler(self) -> Any:
        """What sends errors back."""


@dataclass(frozen=True, slots=True)
class InheritedJob:
    """The evaluation itself, which a forked process has; nothing is copied until it is written to."""

    evaluation: Evaluation

    def open(self, place: Workplace) -> Evaluation:
        return self.evaluation

    def abandon(self) -> None:
        pass

    @property
    def pickler(self) -> Any:
        return pickle


@dataclass(frozen=True, slots=True)
class StoredJob:
    """The evaluation in a file that all workers map, in a folder of its own."""

    path: Path

    def open(self, place: Workplace) -> Evaluation:
        return load_evaluation(self.path, place.device)

    def abandon(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)

    @property
    def pickler(self) -> Any:
        return require(
            "cloudpickle", extra="workers"
        )  # knows the classes that came by value, so that they stay the same


def work(link: connection.Connection, inherited: Sequence[connection.Connection], job: Job, place: Workplace) -> None:
    """Evaluate what comes through the link until it is closed.

    Args:
        inherited: the other ends of all links, which a forked process has open and must close: a link ends when nobody holds it.
    """
    quiet_signals()
    for other in inherited:
        other.close()
    threading.Thread(target=_end_with_parent, args=(job,), daemon=True).start()
    try:
        take_place(place)
        evaluation = job.open(place)
    except Exception as error:
        link.send_bytes(FAILED + f"{type(error).__name__}: {error}".encode())
        return
    try:
        link.send_bytes(READY)
        while True:
            index, architecture = pickle.loads(link.recv_bytes())
            link.send_bytes(pack(evaluation(index, architecture), job.pickler))
    except (EOFError, OSError):  # closed by the parent
        return


def quiet_signals() -> None:
    """Leave Ctrl-C to the parent, and end at SIGTERM, whatever handlers were inherited."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end_with_parent(job: Job) -> None:
    """End at once when the parent ended without a word, also in the midst of an evaluation."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        job.abandon()
        os._exit(1)
