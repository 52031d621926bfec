"""Steps of a search with probabilities of widths (DMCP, Guo et al. 2020, arXiv 2005.03354), for the user's own loop.

`markov_step` trains the weights at the widest, the narrowest and a random subnet; `markov_arch_step` gives the gradients of
the probabilities. The caller owns both optimizers and their order.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mutorch.errors import StateError
from mutorch.mutators import MarkovWidths, Mutator
from mutorch.ops import scaled_columns
from mutorch.space import random_at

from .differentiable import _buffers_kept, _constant, _own_gradients
from .steps import LossFunction, path_step


def markov_step(
    net: nn.Module,
    mutator: Mutator,
    loss_fn: LossFunction,
    *,
    markov: MarkovWidths,
    seed: int,
    step: int,
    by_probability: bool | None = None,
    distill: float = 1.0,
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """The gradients of the weights at the widest, the narrowest and one random subnet, added up.

    The two smaller ones are told, beside the labels, how the widest one answered (Yu and Huang, arXiv 1903.05134).

    Args:
        net: the model that `loss_fn` is called with: the supernet, or its DDP or Fabric wrapper.
        markov: the probabilities of the mutator's widths.
        seed, step: determine the random subnet, together and alone.
        by_probability: whether it is drawn by the probabilities, or every width is as probable as the others; by the
            probabilities once anything was learned unless given.
        distill: how much the comparison with the widest one counts; 0 leaves it out.
        backward: what to do with the loss: `fabric.backward`, or `lambda loss: scaler.scale(loss).backward()`.

    Returns:
        The mean loss, detached.

    Example:
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 32), nn.Linear(32, 4)), torch.zeros(1, 2))
        >>> mutator = Mutator(net)
        >>> x, y = torch.randn(8, 2), torch.zeros(8, dtype=torch.long)
        >>> loss = markov_step(net, mutator, lambda m: F.cross_entropy(m(x), y), markov=MarkovWidths(mutator), seed=0, step=0)
        >>> net[0].state_dict(keep_vars=True)["weight"].grad is not None
        True
    """
    random = random_at(seed, "widths", step)
    drawn = markov.is_learned if by_probability is None else by_probability
    widths = markov.sample(random) if drawn else {name: random.choice(c) for name, c in markov.choices.items()}
    space = mutator.space
    architectures = [space.max, {**space.max, **_narrowest(markov)}, {**space.max, **widths}]
    loss = _Taught(loss_fn, distill) if distill else loss_fn
    return path_step(net, mutator, loss, architectures, backward=backward)


def markov_arch_step(
    mutator: Mutator,
    markov: MarkovWidths,
    loss_fn: LossFunction,
    *,
    cost: Callable[[], Tensor] | None = None,
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """The gradients of the probabilities, with the weights as they are.

    The widest subnet runs, and everything that reads a channel reads it times the probability that it stays: what the loss
    loses by that is the gradient. Each path has one such factor, however many norms or depthwise convolutions are on it.
    BatchNorm normalises by the batch, and its statistics stay as they are.

    Args:
        loss_fn: the loss of the task, of other data than the weights train on.
        cost: what is added to it: `lambda: cost_loss(expected, target)`, see `mutorch.search.cost_loss`.
        backward: as in `markov_step`.

    Returns:
        The loss of the task, detached.

    Errors:
        StateError: a unit that no convolution or linear layer reads, so that nothing would tell what it is worth.

    Example:
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 32), nn.Linear(32, 4)), torch.zeros(1, 2))
        >>> markov = MarkovWidths(Mutator(net))
        >>> loss = markov_arch_step(Mutator(net), markov, lambda m: m(torch.ones(8, 2)).square().sum())
        >>> markov["0"].grad.shape, net[0].weight.grad
        (torch.Size([3]), None)
    """
    markov.project_()
    model, parameters = mutator.model, list(markov.parameters.values())
    with (
        mutator.at({**mutator.current_choices, **{name: choices[-1] for name, choices in markov.choices.items()}}),
        _constant(mutator.weight_parameters()),
        _buffers_kept(model),
        _own_gradients(parameters),
        scaled_columns(model, markov.scales()) as read,
    ):
        unread = markov.unread(read)
        if unread:
            raise StateError(
                f"no convolution or linear layer reads the channels of unit {unread[0]!r} alone, so that its probabilities "
                "cannot be learned; leave it out with freeze, or with a rule that gives it one width"
            )
        loss = loss_fn(model)
        backward(loss if cost is None else loss + cost().to(loss))
    return loss.detach()


def _narrowest(markov: MarkovWidths) -> dict[str, Any]:
    return {name: choices[0] for name, choices in markov.choices.items()}


class _Taught:
    """A loss whose first call's outputs are soft targets for the other calls."""

    def __init__(self, loss_fn: LossFunction, weight: float) -> None:
        self._loss_fn, self._weight = loss_fn, weight
        self._wanted: list[Tensor] | None = None

    def __call__(self, model: nn.Module) -> Tensor:
        given: list[Any] = []
        handle = model.register_forward_hook(lambda _module, _inputs, output: given.append(output))
        try:
            loss = self._loss_fn(model)
        finally:
            handle.remove()
        outputs = [leaf for one in given for leaf in tree_leaves(one) if _is_scores(leaf)]
        if not outputs:
            raise StateError(
                "the loss calls no model that gives scores of classes, so there is nothing to distill; give distill=0"
            )
        if self._wanted is None:
            self._wanted = [output.detach() for output in outputs]
            return loss
        pairs = zip(outputs, self._wanted, strict=True)
        apart = [
            F.kl_div(F.log_softmax(a, 1), F.log_softmax(b, 1), reduction="none", log_target=True) for a, b in pairs
        ]
        return loss + self._weight * torch.stack([one.sum(1).mean() for one in apart]).mean()


def _is_scores(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim() > 1
