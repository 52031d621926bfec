"""How much faster a network is at half its MACs: ResNet-50 through `shrink`, every width a multiple of 8, not trained.

One CPU thread, 8 images of 224x224, in turns. A ratio of 2 is what the MACs alone would say.
"""

import torch

from benchmarks.measure import in_turns
from benchmarks.resnet50 import ResNet50
from mutorch import count
from mutorch.pruning import shrink
from mutorch.utils import evaluating

BATCH = 8


def run(repeats: int = 15) -> dict[str, float]:
    """The latency of the original over that of the pruned network, and what is left of MACs and parameters."""
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        original, images = ResNet50(), torch.randn(BATCH, 3, 224, 224)
    for allocation in ("uniform", "global"):
        small = shrink(original, {"macs": "50%"}, [images], allocation=allocation, calibrate=0)  # type: ignore[arg-type]
        widths = [width for width in small.architecture.values() if width % 8]
        if widths:
            raise AssertionError(f"widths that are no multiples of 8: {widths}")
        with evaluating(original, small.model), torch.inference_mode():
            whole, pruned = in_turns(lambda: original(images), lambda m=small.model: m(images), repeats=repeats)
        costs = count(original, images[:1]), count(small.model, images[:1])
        figures[f"{allocation}: MACs, pruned / original"] = costs[1].macs / costs[0].macs
        figures[f"{allocation}: parameters, pruned / original"] = costs[1].params / costs[0].params
        figures[f"{allocation}: latency at batch {BATCH}, original / pruned"] = whole / pruned
        figures[f"{allocation}: ms, original"], figures[f"{allocation}: ms, pruned"] = 1000 * whole, 1000 * pruned
    return figures
