"""Blocks that compute their inside again during backward instead of keeping it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(block: nn.Module, inner: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """`inner(*inputs)`, with less memory and the same gradients; batch norms of `block` see the batch once, not twice."""
    if not torch.is_grad_enabled():
        return inner(*inputs)
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    contexts = (nullcontext(), _StatisticsKept(norms))
    output: Tensor = checkpoint(inner, *inputs, use_reentrant=False, context_fn=lambda: contexts)
    return output


class _StatisticsKept(AbstractContextManager[None]):
    """Batch norms leave their running statistics as they are inside the `with`.

    The layers still get their statistics, with momentum 0: the second pass must save the same tensors as the first.
    """

    def __init__(self, norms: list[_BatchNorm]) -> None:
        self._norms = norms
        self._before: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        for norm in self._norms:
            count = norm.num_batches_tracked
            self._before.append((norm.momentum, None if count is None else count.clone()))
            norm.momentum = 0.0

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, count) in zip(self._norms, self._before, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
        self._before.clear()
