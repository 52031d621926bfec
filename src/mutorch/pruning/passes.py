"""How much a pruning computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mutorch.utils import removing

FORWARD = 1 / 3
"""What a forward alone counts: a backward takes about twice as long."""


class Passes:
    """Counts passes: a forward and backward of a batch is one, a forward alone a third.

    Args:
        batch: how many samples a batch has; fewer count as a part of it.

    Attributes:
        total: of everything that ran inside `counting`.

    Example:
        >>> passes, model = Passes(batch=4), nn.Linear(1, 1)
        >>> with passes.counting(model):
        ...     _ = model(torch.zeros(4, 1)), model(torch.zeros(1, 1))
        >>> passes.total
        1.25
    """

    def __init__(self, batch: int) -> None:
        self.total = 0.0
        self._batch = batch

    @contextmanager
    def counting(self, *models: nn.Module) -> Iterator[None]:
        """Forwards of these models inside count."""

        def count(_module: nn.Module, args: Any, kwargs: Any, _output: Any) -> None:
            self.total += (1.0 if torch.is_grad_enabled() else FORWARD) * num_rows((args, kwargs)) / self._batch

        handles = [model.register_forward_hook(count, with_kwargs=True) for model in models]
        with removing(handles):
            yield


def num_rows(batch: Any) -> int:
    """How many samples there are: the first dimension of the first tensor; 1 without one."""
    return next((len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()), 1)
