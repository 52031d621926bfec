"""Measured latency."""

import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mutorch.errors import MeasureError
from mutorch.utils import ExampleInputs, call, evaluating

NOISY = 0.1
"""The distance between the quartiles, as a share of the median, above which there is a warning."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The milliseconds of one forward, measured several times.

    Attributes:
        median_ms, low_ms, high_ms: the median and the quartiles.
        repeats: how many times it was measured.
        runtime, device, dtype, threads, batch: as `LatencyRunner` has them; `None` where they were not set.

    Example:
        >>> Measured.of([1.0, 2.0, 3.0], runtime="eager")
        Measured(median_ms=2.0, low_ms=1.5, high_ms=2.5, repeats=3, runtime='eager')
        >>> Measured.of([1.0, 2.0, 3.0], runtime="eager").spread
        0.5
    """

    median_ms: float
    low_ms: float
    high_ms: float
    repeats: int
    runtime: str
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    batch: int | None = None

    @classmethod
    def of(
        cls,
        times: Sequence[float],
        *,
        runtime: str,
        device: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        batch: int | None = None,
    ) -> "Measured":
        """The summary of measured milliseconds.

        Errors:
            MeasureError: no times, or one that no forward can take: 0, negative or not a finite number.
        """
        if not times:
            raise MeasureError(f"{runtime} measured nothing")
        check_times(times, runtime)
        low, median, high = (float(value) for value in np.percentile(times, (25, 50, 75)))
        return cls(median, low, high, len(times), runtime, device, dtype, threads, batch)

    @property
    def spread(self) -> float:
        """The distance between the quartiles over the median."""
        return (self.high_ms - self.low_ms) / self.median_ms

    def scaled(self, factor: float) -> "Measured":
        """The same measurement on a machine that is slower by `factor`."""
        return replace(
            self, median_ms=self.median_ms * factor, low_ms=self.low_ms * factor, high_ms=self.high_ms * factor
        )

    def __str__(self) -> str:
        where = " ".join(str(part) for part in (self.runtime, self.device, self.dtype) if part is not None)
        return f"{self.median_ms:.4g} ms ({self.low_ms:.4g} to {self.high_ms:.4g}, {self.repeats} times, {where})"

    def __repr__(self) -> str:
        given = ((name, getattr(self, name)) for name in self.__slots__)
        return f"Measured({', '.join(f'{name}={value!r}' for name, value in given if value is not None)})"


def measure_latency(
    models: Sequence[nn.Module], example_inputs: ExampleInputs, *, repeats: int = 30, warmup: int = 3
) -> list[float]:
    """The median milliseconds of one forward of each model, in evaluation mode without gradients.

    The models take turns, so that a machine that slows down slows all of them. On CUDA each forward is waited for.
    Modes are as before afterwards. `LatencyRunner` does the same for other devices, runtimes and number types.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    on_cuda = any(x.is_cuda for x in tree_flatten(example_inputs)[0] if isinstance(x, Tensor))
    forwards = [lambda model=model: call(model, example_inputs) for model in models]
    with evaluating(*models), torch.inference_mode():
        times = in_turns(forwards, repeats=repeats, warmup=warmup, wait=torch.cuda.synchronize if on_cuda else None)
    return [statistics.median(taken) for taken in times]


def in_turns(
    forwards: Sequence[Callable[[], object]],
    *,
    repeats: int,
    warmup: int,
    wait: Callable[[], object] | None = None,
) -> list[list[float]]:
    """The milliseconds of every call of each function, in turns, after some that are not counted.

    Args:
        wait: called after each of them, within its time: what waits until a device is done.
    """
    times: list[list[float]] = [[] for _ in forwards]
    for turn in range(warmup + repeats):
        for forward, taken in zip(forwards, times, strict=True):
            start = time.perf_counter()
            forward()
            if wait is not None:
                wait()
            if turn >= warmup:
                taken.append(1000 * (time.perf_counter() - start))
    return times


def check_times(times: Iterable[float], runtime: str) -> None:
    """Refuse what no forward can take.

    Errors:
        MeasureError: 0, negative or not a finite number.
    """
    for number in times:
        if not math.isfinite(number) or number <= 0:
            raise MeasureError(f"{runtime} measured {number!r} ms; a latency is a positive number")


def steadied(times: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """The times of each model, without what the turns were slower or faster than usual for most of the models.

    Args:
        times: by model and turn, one or several in each turn. Of fewer than three models nothing is known of turns.

    Example:
        >>> steadied([[[1.0], [1.0], [3.0]], [[2.0], [2.0], [6.0]], [[5.0], [5.0], [15.0]]])
        [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [5.0, 5.0, 5.0]]
    """
    medians = np.array([[statistics.median(turn) for turn in model] for model in times])
    slower = np.median(medians / np.median(medians, axis=1, keepdims=True), axis=0)
    if len(times) < 3:
        slower = np.ones_like(slower)
    return [
        [one / factor for turn, factor in zip(model, slower.tolist(), strict=True) for one in turn] for model in times
    ]


def warn_if_noisy(measured: Iterable[Measured], *, stacklevel: int = 3) -> None:
    """One warning where quartiles are further than `NOISY` apart, which says how many and how far."""
    found = list(measured)
    noisy = [one for one in found if one.spread > NOISY]
    if noisy:
        worst = max(one.spread for one in noisy)
        warnings.warn(
            f"{len(noisy)} of {len(found)} measured latencies vary: their quartiles are up to {worst:.0%} of the median "
            f"apart, above {NOISY:.0%}; stop other programs, fix the clocks, measure more often (repeats) or use fewer threads",
            stacklevel=stacklevel,
        )
