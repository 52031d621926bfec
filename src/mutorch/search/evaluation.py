"""One candidate evaluated: always with the same random numbers, and an error that says whose it is."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mutorch.mutators import Mutator
from mutorch.space import Architecture, random_at
from mutorch.subnet.export import export  # by its file: mypy takes the name of the package for the file

from .objectives import as_plain

_get_bit_generator = np.random.get_bit_generator  # type: ignore[attr-defined]
_set_bit_generator = np.random.set_bit_generator  # type: ignore[attr-defined]
"""NumPy's stubs lack both."""

Evaluate = Callable[[nn.Module], float | Mapping[str, float]]
"""Takes a plain model in evaluation mode, returns what to maximise: a number, or a dict of them."""

EvaluateArchitecture = Callable[[Architecture], float | Mapping[str, float]]
"""Takes an architecture, returns what to maximise: a number, or a dict of them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one evaluation.

    Attributes:
        index: of the trial.
        result: plain numbers; `None` where there was an error.
        seconds: how long it took.
        error: what was raised.
    """

    index: int
    result: float | dict[str, float] | None
    seconds: float
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a pool runs for each trial, in this process or another one.

    The global generators of Python, NumPy and torch are seeded by (seed, index of the trial) for the time of the call, and are as
    before afterwards: a result depends neither on what was evaluated before it, nor on where.

    Args:
        evaluate: of an architecture.
        seed: of the search.
    """

    evaluate: EvaluateArchitecture
    seed: int

    def __call__(self, index: int, architecture: Architecture) -> Outcome:
        start = time.perf_counter()
        try:
            with seeded(self.seed, index):
                result = as_plain(self.evaluate(deepcopy(dict(architecture))))  # evaluate may take it apart
        except Exception as error:
            error.add_note(f"while evaluating trial {index}, {architecture}")
            return Outcome(index, None, time.perf_counter() - start, error)
        return Outcome(index, result, time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class SubnetEvaluation:
    """Evaluates an architecture as the exported, recalibrated subnet of a supernet.

    Args:
        net, mutator: the supernet.
        evaluate, calibrate: as for `search`.
    """

    net: nn.Module
    mutator: Mutator
    evaluate: Evaluate
    calibrate: Iterable[Any] | Literal[False] | None

    def __call__(self, architecture: Architecture) -> float | Mapping[str, float]:
        calibrate = None if self.calibrate is False else self.calibrate
        return self.evaluate(export(self.net, architecture, mutator=self.mutator, calibrate=calibrate).eval())


@contextmanager
def seeded(seed: int, index: int) -> Iterator[None]:
    """Global generators that depend on seed and index only; they are as before afterwards."""
    draw = random_at(seed, "evaluation", index)
    # Whole generators change places, where that can be: copying the state of NumPy's takes longer than all the rest.
    python, numpy_ = random.getstate(), _get_bit_generator()
    is_started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if is_started else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(draw.getrandbits(63))
        random.seed(draw.getrandbits(63))
        _set_bit_generator(np.random.MT19937(draw.getrandbits(63)))
        if is_started or (torch.backends.cuda.is_built() and not torch.cuda._is_in_bad_fork()):  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(draw.getrandbits(63))  # waits where evaluate is the first to use a GPU
        try:
            yield
        finally:
            random.setstate(python)
            _set_bit_generator(numpy_)
