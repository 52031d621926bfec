"""How much faster workers evaluate than one of them, and what a trial costs that costs nothing."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch

from benchmarks.measure import in_turns
from mutorch.search import Evaluation, Processes, RayWorkers, search_space
from mutorch.search.crew import CrewPool
from mutorch.space import Decision, SearchSpace

SPACE = SearchSpace([Decision(f"block{number}", (1, 2, 3, 4)) for number in range(6)])
SECONDS = 0.5
TRIALS = 4
TURNS = 11
FORK = multiprocessing.get_context("fork")


def calculate(amount: int) -> float:
    """Keeps one core busy, mostly out of the caches' reach of others."""
    x = torch.full((96, 96), 0.01)
    for _ in range(amount):
        x = (x @ x).tanh() + 0.01
    return x.sum().item()


def amount_for(seconds: float) -> int:
    """How much to calculate for that many seconds on a core that is alone."""
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        calculate(2000)
        taken.append(time.perf_counter() - start)
    return max(int(2000 * seconds / min(taken)), 1)


class Started:
    """A pool of a crew that is ready: what it takes to start workers is measured on its own."""

    def __init__(self, factory: Callable[[Evaluation], CrewPool], evaluation: Evaluation, count: int) -> None:
        self.pool = factory(evaluation)
        for index in range(count):
            self.pool.submit(index, SPACE.sample(index))
        for _ in range(count):
            self.pool.result()

    def evaluate(self, trials: int) -> None:
        """That many trials, all of them waiting from the beginning."""
        for index in range(trials):
            self.pool.submit(index, SPACE.sample(index))
        for _ in range(trials):
            self.pool.result()


def run() -> dict[str, float]:
    """All figures by name."""
    torch.set_num_threads(1)
    return {**_speedups(amount_for(SECONDS)), **_overhead()}


def _speedups(amount: int) -> dict[str, float]:
    """One and two workers of each kind, all in turns: a machine that has less to give has it for all of them."""
    evaluation, amounts = Evaluation(lambda _: calculate(amount), 0), [amount] * TRIALS
    kinds: dict[str, Callable[[int], Processes | RayWorkers]] = {
        "processes": Processes,
        "Ray actors": lambda count: RayWorkers(count, num_cpus=0.5),  # the one and the two share two cores, in turns
    }
    with ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {}
        for count in (1, 2):
            plain = stack.enter_context(FORK.Pool(count))
            calls[f"{count} plain processes"] = partial(plain.map, calculate, amounts, 1)
        for name, factory in kinds.items():
            for count in (1, 2):
                started = Started(factory(count), evaluation, count)
                stack.enter_context(started.pool)
                calls[f"{count} {name}"] = partial(started.evaluate, TRIALS)
        taken = dict(zip(calls, in_turns(*calls.values(), repeats=TURNS), strict=True))
    figures = {f"seconds of a trial of {SECONDS} s, 1 of plain processes": taken["1 plain processes"] / TRIALS}
    for name in ("plain processes", *kinds):
        figures[f"speed of 2 {name} over 1, trials of {SECONDS} s"] = taken[f"1 {name}"] / taken[f"2 {name}"]
    return figures


def _overhead() -> dict[str, float]:
    def whole(workers: int) -> Callable[[], object]:
        return lambda: search_space(SPACE, lambda a: float(a["block0"]), num_trials=500, workers=workers)

    here, one, two = in_turns(whole(0), whole(1), whole(2), repeats=5)
    start = []
    for _ in range(5):
        before = time.perf_counter()
        with Started(Processes(1), Evaluation(lambda _: 0.0, 0), 1).pool:
            start.append(time.perf_counter() - before)
    return {
        "trial that does nothing, in this process, microseconds": here / 500 * 1e6,
        "trial that does nothing, 1 process, microseconds": one / 500 * 1e6,
        "trial that does nothing, 2 processes, microseconds": two / 500 * 1e6,
        "start of a process, to its first result, milliseconds": statistics.median(start) * 1e3,
    }
