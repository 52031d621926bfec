"""How well a table built from 200 measured subnets predicts others: the MobileNet space of Single Path One-Shot.

7^21 encodings, one 64x64 image, one CPU thread, eager. The table is built first; then other random subnets are exported and
measured, in turns with the same subnet as before, and compared with what the table says. Counted macs are the trivial
predictor.
"""

import statistics

import numpy as np
import torch

from mutorch import CostTable, LatencyRunner, Mutator, latency_table
from mutorch.cost import Accuracy
from mutorch.models import spos_mobilenet_setting
from mutorch.registry import MODELS
from mutorch.subnet import SubnetLatency

NUM_SAMPLES, FRESH = 200, 60


def run(repeats: int = 30) -> dict[str, float]:
    """Rank correlation and relative errors, of the table on fresh subnets and as it says itself."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = MODELS.build(spos_mobilenet_setting()).eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mutator, runner = Mutator(net), LatencyRunner(threads=1, repeats=repeats)
    counted = CostTable.from_model(mutator, image)
    table = latency_table(net, mutator, image, runner=runner, num_samples=NUM_SAMPLES, costs=counted)
    print(table)
    fresh = [mutator.space.canonical(mutator.space.sample(10_000 + number)) for number in range(FRESH)]
    measured = SubnetLatency(net, mutator, image, runner).measure(fresh)
    times = np.array([one.median_ms for one in measured])
    codes = np.array([mutator.space.encode(architecture) for architecture in fresh])
    predicted, macs = table.evaluate(codes), counted.evaluate(codes, "macs").astype(np.float64)
    found, trivial = Accuracy.of(predicted, times), Accuracy.of(macs, times)
    return {
        "measurements that the table is built from": table.accuracy.num_measurements,
        "fresh subnets": FRESH,
        "rank correlation, table": found.rank_correlation,
        "rank correlation, macs": trivial.rank_correlation,
        "median relative error": found.median_error,
        "relative error of nine of ten": found.large_error,
        "said by the table: rank correlation": table.accuracy.rank_correlation,
        "said by the table: median relative error": table.accuracy.median_error,
        "said by the table: relative error of nine of ten": table.accuracy.large_error,
        "ms, median of fresh subnets": float(np.median(times)),
        "ms, standard deviation over fresh subnets": float(times.std()),
        "quartiles apart, median of fresh subnets": statistics.median(one.spread for one in measured),
    }
