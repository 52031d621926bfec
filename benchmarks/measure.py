"""Timing in turns, each in the opposite order of the last: what is compared shares the machine's bad moments."""

import gc
import statistics
import time
from collections.abc import Callable


def in_turns(*functions: Callable[[], object], repeats: int, inner: int = 1) -> list[float]:
    """The median seconds of one call of each function, measured in turns after one unmeasured turn."""
    times: list[list[float]] = [[] for _ in functions]
    gc.collect()
    gc.disable()
    try:
        for turn in range(repeats + 1):
            pairs = list(zip(functions, times, strict=True))
            for function, taken in pairs if turn % 2 else reversed(pairs):
                start = time.perf_counter()
                for _ in range(inner):
                    function()
                if turn:
                    taken.append((time.perf_counter() - start) / inner)
    finally:
        gc.enable()
    return [statistics.median(taken) for taken in times]
