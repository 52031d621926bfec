"""Steps of a search with probabilities of widths (DMCP, Guo et al. 2020, arXiv 2005.03354), for the user's own loop.

`markov_step` trains the weights at the widest, the narrowest and a random subnet; `markov_arch_step` gives the gradients of
the probabilities. The caller owns both optimizers and their order.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import StateError
from mutorch.mutators import MarkovWidths, Mutator
from mutorch.ops import scaled_columns
from mutorch.space import random_at
from mutorch.utils import evaluating

from .differentiable import _buffers_kept, _constant, _own_gradients
from .distill import Distill
from .recalibrate import recalibrate_
from .sandwich import slimmable_step
from .steps import LossFunction


def markov_step(
    net: nn.Module,
    mutator: Mutator,
    loss_fn: LossFunction,
    *,
    markov: MarkovWidths,
    seed: int,
    step: int,
    by_probability: bool | None = None,
    distill: Distill | bool = True,
    loss_weight: float = 1.0,
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """The gradients of the weights at the widest, the narrowest and one random subnet, added up.

    The two smaller ones learn from the labels and from what the widest one says.

    Args:
        net: the model that `loss_fn` is called with: the supernet, or its DDP or Fabric wrapper.
        markov: the probabilities of the mutator's widths.
        seed, step: determine the random subnet, together and alone.
        by_probability: whether it is drawn by the probabilities, or every width is as probable as the others; by the
            probabilities once anything was learned unless given.
        distill, loss_weight: see `sandwich_step`.
        backward: what to do with the loss: `fabric.backward`, or `lambda loss: scaler.scale(loss).backward()`.

    Returns:
        The mean loss, detached.

    Example:
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 32), nn.Linear(32, 4)), torch.zeros(1, 2))
        >>> x, y = torch.randn(8, 2), torch.zeros(8, dtype=torch.long)
        >>> def loss_fn(model):
        ...     return nn.functional.cross_entropy(model(x), y)
        >>> loss = markov_step(net, Mutator(net), loss_fn, markov=MarkovWidths(Mutator(net)), seed=0, step=0)
        >>> net[0].state_dict(keep_vars=True)["weight"].grad is not None
        True
    """
    random = random_at(seed, "widths", step)
    drawn = markov.is_learned if by_probability is None else by_probability
    widths = markov.sample(random) if drawn else {name: random.choice(c) for name, c in markov.choices.items()}
    space = mutator.space
    narrowest = {name: choices[0] for name, choices in markov.choices.items()}
    architectures = [space.max, {**space.max, **narrowest}, {**space.max, **widths}]
    return slimmable_step(
        net, mutator, loss_fn, architectures, distill=distill, loss_weight=loss_weight, backward=backward
    )


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

    BatchNorm normalises by the statistics that the widest subnet has on the same data, which one more forward measures: those
    of the scaled channels would undo the scaling, and those of training are of all widths. The model is in evaluation mode
    meanwhile, and as before afterwards.

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
        evaluating(model),
    ):
        recalibrate_(model, [loss_fn], forward=lambda widest, _: loss_fn(widest))
        loss = _scaled(model, markov, loss_fn)
        backward(loss if cost is None else loss + cost().to(loss))
    return loss.detach()


def _scaled(model: nn.Module, markov: MarkovWidths, loss_fn: LossFunction) -> Tensor:
    """The loss where channels are read times their probability."""
    with scaled_columns(model, markov.scales()) as read:
        unread = markov.unread(read)
        if unread:
            raise StateError(
                f"no convolution or linear layer reads the channels of unit {unread[0]!r} alone, so that its probabilities "
                "cannot be learned; leave it out with freeze, or with a rule that gives it one width"
            )
        return loss_fn(model)
