"""What one model learns from the outputs of another, where the loss function is all that calls them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mutorch.errors import ConfigError
from mutorch.utils import evaluating

Distill = Callable[[Any, Any], Tensor]
"""Takes the outputs of a student and, detached, those of its teacher; returns how far they are apart."""


@contextmanager
def seen_outputs(net: nn.Module) -> Iterator[list[Any]]:
    """What `net` gives at each call inside the `with`, in order."""
    outputs: list[Any] = []
    handle = net.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def detached(output: Any) -> Any:
    """The same output without its history."""
    return tree_map(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, output)


def scores_of(output: Any) -> list[Tensor]:
    """The tensors of an output that can be compared: of floating point, and no scalars."""
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return [leaf for leaf in leaves if leaf.dim() > 0]


def class_dim(scores: Tensor) -> int:
    """Along which dimension classes lie: 1 (class scores, score maps), the last of three (scores of every token)."""
    return 2 if scores.dim() == 3 else 1


def soft_cross_entropy(output: Any, wanted: Any, *, temperature: float = 1.0) -> Tensor:
    """The cross entropy of a model's outputs with a teacher's as soft targets, averaged over samples and tensors.

    Outputs are tensors, or anything that holds some. They are compared tensor by tensor as logits along dimension 1 (class
    scores, score maps), or along the last one where there are three (scores of every token); a single dimension by squared
    differences. Scalars, such as a loss that the model computes itself, are left out.

    Args:
        temperature: outputs are divided by it before they are compared.

    Errors:
        ConfigError: nothing to compare, or outputs that differ in shape.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0]])
        >>> round(soft_cross_entropy(logits, logits).item(), 4)  # the entropy of the teacher is what is left
        0.6931
    """
    pairs = list(zip(ours := scores_of(output), theirs := scores_of(wanted), strict=False))
    if not ours or len(ours) != len(theirs) or any(one.shape != other.shape for one, other in pairs):
        shapes = [[tuple(scores.shape) for scores in side] for side in (ours, theirs)]
        raise ConfigError(
            f"the outputs have scores of the shapes {shapes[0]}, those to learn from {shapes[1]}, which cannot be compared; "
            "give distill=False, or a function of both outputs"
        )
    return torch.stack([_cross_entropy(one, other, temperature) for one, other in pairs]).mean()


def _cross_entropy(scores: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    if scores.dim() < 2:
        return F.mse_loss(scores, wanted)
    along = class_dim(scores)
    targets = (wanted.float() / temperature).softmax(dim=along)
    return -(targets * (scores.float() / temperature).log_softmax(dim=along)).sum(dim=along).mean()


class InPlaceDistillation:
    """The losses of several architectures, one after the other: the first learns from `loss_fn`, the others from the first.

    In-place distillation (US-Nets, Yu and Huang 2019, arXiv 1903.05134, section 3.3).

    Args:
        loss_fn: takes the model; what the model gave is seen at the calls that it makes.
        distill: compares outputs.
        loss_weight: how much of `loss_fn` the others learn from beside.
        teacher: a model that all learn from instead of the first; it is run in evaluation mode.
    """

    def __init__(
        self,
        loss_fn: Callable[[nn.Module], Tensor],
        distill: Distill,
        loss_weight: float,
        teacher: nn.Module | None = None,
    ) -> None:
        self._loss_fn = loss_fn
        self._distill = distill
        self._loss_weight = loss_weight
        self._teacher = teacher
        self._wanted: list[Any] = []

    def __call__(self, number: int, net: nn.Module) -> Tensor:
        """The loss of architecture `number`, which is in force."""
        if number == 0 and self._teacher is not None:
            with evaluating(self._teacher), torch.no_grad():
                self._run(self._teacher)
        loss, outputs = self._run(net)
        if number == 0 and self._teacher is None:
            return loss
        if len(outputs) != len(self._wanted):
            raise ConfigError(
                f"loss_fn called the model to learn from {len(self._wanted)} times and this architecture {len(outputs)} times, "
                "so that outputs cannot be compared; give distill=False"
            )
        pairs = zip(outputs, self._wanted, strict=True)
        apart = torch.stack([self._distill(output, wanted) for output, wanted in pairs]).mean()
        return apart + self._loss_weight * loss if self._loss_weight else apart

    def _run(self, model: nn.Module) -> tuple[Tensor, list[Any]]:
        """The loss and what the model gave; the first to be run is the one to learn from."""
        with seen_outputs(model) as outputs:
            loss = self._loss_fn(model)
        if not outputs:
            raise ConfigError(
                "loss_fn does not call the model that it is given, so its outputs are not seen; give distill=False"
            )
        self._wanted = self._wanted or [detached(output) for output in outputs]
        return loss, outputs
