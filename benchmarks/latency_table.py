"""How well a table built from 200 measured subnets predicts 60 others: the MobileNet space of Single Path One-Shot.

7^21 encodings, one 64x64 image, one CPU thread, eager. What is counted is the time that the thread computes, which equals the
latency where nothing else runs, and which other programs add less to; how much longer the clock on the wall ran is among the
figures. All subnets take turns with one that they are compared with, those that the table is built from and those that it
predicts in random order, twice. Counted macs are the trivial predictor; measuring the 60 once more says what a perfect one
would reach.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mutorch import CostTable, LatencyRunner, LatencyTable, Mutator
from mutorch.cost import Accuracy
from mutorch.cost.latency_design import design
from mutorch.models import spos_mobilenet_setting
from mutorch.registry import MODELS
from mutorch.space import Architecture, random_at
from mutorch.subnet import SubnetLatency

NUM_SAMPLES, FRESH, ROUNDS = 200, 60, 2


def run(repeats: int = 30) -> dict[str, float]:
    """Rank correlation and relative errors, of the table on fresh subnets and as it says itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run(repeats)
    finally:
        torch.set_num_threads(threads)


def _run(repeats: int) -> dict[str, float]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = MODELS.build(spos_mobilenet_setting()).eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mutator, clocks = Mutator(net), _Clocks()
    space, counted = mutator.space, CostTable.from_model(mutator, image)
    built_from = design(space, NUM_SAMPLES, seed=0)
    fresh = [space.canonical(space.sample(10_000 + number)) for number in range(FRESH)]
    subnets = SubnetLatency(net, mutator, image, LatencyRunner(clocks, warmup=2, repeats=repeats))
    both = _measured(subnets, [*built_from, *fresh], "both")
    known, times = both[:NUM_SAMPLES], both[NUM_SAMPLES:]
    again = _measured(subnets, fresh, "again")
    costs = {metric: counted.factors(metric) for metric in ("macs", "act_mem_mb", "size_mb")}
    table = LatencyTable.fit(space, built_from, known.tolist(), measured_on="this CPU, eager, 1 thread", costs=costs)
    print(table)
    codes = np.array([space.encode(architecture) for architecture in fresh])
    macs = counted.evaluate(codes, "macs").astype(np.float64)
    found, perfect = Accuracy.of(table.evaluate(codes), times), Accuracy.of(again, times)
    return {
        "measurements that the table is built from": NUM_SAMPLES,
        "fresh subnets": FRESH,
        "rank correlation, table": found.rank_correlation,
        "rank correlation, macs": Accuracy.of(macs, times).rank_correlation,
        "rank correlation, measured once more": perfect.rank_correlation,
        "median relative error": found.median_error,
        "relative error of nine of ten": found.large_error,
        "median relative error, measured once more": perfect.median_error,
        "said by the table: rank correlation": table.accuracy.rank_correlation,
        "said by the table: median relative error": table.accuracy.median_error,
        "said by the table: relative error of nine of ten": table.accuracy.large_error,
        "ms, median of fresh subnets": float(np.median(times)),
        "ms, standard deviation over fresh subnets": float(times.std()),
        "wall time / time computed (1 on a quiet machine)": clocks.wall / clocks.computed,
    }


class _Clocks:
    """A runtime: the milliseconds that this thread computed in one forward."""

    def __init__(self) -> None:
        self.wall = self.computed = 0.0

    @torch.inference_mode()
    def __call__(self, model: nn.Module, image: Tensor) -> float:
        wall, start = time.perf_counter(), time.thread_time()
        model(image)
        computed = time.thread_time() - start
        self.wall += time.perf_counter() - wall
        self.computed += computed
        return 1000 * computed


def _measured(subnets: SubnetLatency, architectures: Sequence[Architecture], what: str) -> NDArray[np.float64]:
    """Their latencies, measured in several random orders: what a machine does over minutes is no difference between them."""
    times = np.zeros(len(architectures))
    for number in range(ROUNDS):
        order = list(range(len(architectures)))
        random_at(0, what, number).shuffle(order)
        times[order] += [one.median_ms / ROUNDS for one in subnets.measure([architectures[one] for one in order])]
    return times
