"""Running a model to look at it, and leaving no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .evaluating import evaluating


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; modes, buffers and random states are as before afterwards."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with evaluating(model), torch.random.fork_rng(devices=list(devices)), torch.no_grad():
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
