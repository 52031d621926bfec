"""Where an evaluation runs: what `evaluate` may ask about its worker."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Workplace:
    """One worker.

    Attributes:
        index: its number, from 0.
        device: what it is to compute on, where the pool gives devices out.
        threads: how many threads it computes with; `None` to leave that as it is.
    """

    index: int = 0
    device: str | None = None
    threads: int | None = None


_here = [Workplace()]  # of the process, all of its threads: the last one counts


def worker_index() -> int:
    """The number of the worker that evaluates, from 0; the rank under torchrun; 0 where there are no workers.

    For places, such as a device or the name of a temporary file. A result must not depend on it.

    Example:
        >>> worker_index()
        0
    """
    return _here[-1].index


def worker_device(default: str | torch.device = "cpu") -> torch.device:
    """The device of the worker that evaluates; the default where its pool gives none out.

    Example:
        >>> worker_device()
        device(type='cpu')
    """
    return torch.device(_here[-1].device or default)


def take_place(place: Workplace) -> None:
    """Make this process, for the rest of its life, the worker at that place."""
    _here[:] = [place]
    if place.threads is not None:
        torch.set_num_threads(place.threads)
    if place.device is not None and torch.device(place.device).type == "cuda":
        torch.cuda.set_device(place.device)


@contextmanager
def at_place(place: Workplace) -> Iterator[None]:
    """This process as the worker at that place, for a while."""
    _here.append(place)
    try:
        yield
    finally:
        _here.remove(place)
