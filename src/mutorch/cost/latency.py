"""Measured latency."""

import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mutorch.utils import ExampleInputs, call, evaluating


def measure_latency(
    models: Sequence[nn.Module], example_inputs: ExampleInputs, *, repeats: int = 30, warmup: int = 3
) -> list[float]:
    """The median milliseconds of one forward of each model, in evaluation mode without gradients.

    The models take turns, so that a machine that slows down slows all of them. On CUDA each forward is waited for.
    Modes are as before afterwards.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    on_cuda = any(x.is_cuda for x in tree_flatten(example_inputs)[0] if isinstance(x, Tensor))
    times: list[list[float]] = [[] for _ in models]
    with evaluating(*models), torch.inference_mode():
        for turn in range(warmup + repeats):
            for model, taken in zip(models, times, strict=True):
                start = time.perf_counter()
                call(model, example_inputs)
                if on_cuda:
                    torch.cuda.synchronize()
                if turn >= warmup:
                    taken.append(time.perf_counter() - start)
    return [1000 * statistics.median(taken) for taken in times]
