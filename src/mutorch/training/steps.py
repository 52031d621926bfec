"""One training step of a supernet, for the user's own loop.

Parameters that a step did not use keep `grad is None`, so no optimizer moves them, by weight decay or by momentum. This
holds under DistributedDataParallel too, with its default settings: every rank uses the same architecture, and the
parameters off the path take part in the reduction with a zero that is removed again before the optimizer sees it. A value
that leaves out layers, such as a depth, says nothing of their parameters: there, DDP needs `find_unused_parameters=True`.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mutorch.errors import StateError
from mutorch.mutators import Mutator, active_parameters
from mutorch.space import Architecture

from .architectures import single_path, strict_fair

LossFunction = Callable[[nn.Module], Tensor]
"""Takes the model, returns the scalar loss: `lambda model: criterion(model(x), y)`."""


def single_path_step(
    net: nn.Module,
    mutator: Mutator,
    loss_fn: LossFunction,
    *,
    seed: int,
    step: int,
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """Sample one architecture, compute its loss and its gradients; the caller steps and zeroes the optimizer.

    Gradients add up over calls until they are zeroed, as always in torch. The architecture stays set afterwards.

    Args:
        net: the model that `loss_fn` is called with: the supernet, or its DDP or Fabric wrapper.
        seed, step: determine the architecture, together and alone.
        backward: what to do with the loss: `fabric.backward`, or `lambda loss: scaler.scale(loss).backward()`.

    Returns:
        The loss, detached.

    Example:
        >>> from mutorch.mutables import OneShotMutableOP
        >>> net = nn.Sequential(OneShotMutableOP({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)}))
        >>> loss = single_path_step(net, Mutator(net), lambda m: m(torch.ones(4, 2)).sum(), seed=0, step=0)
        >>> sum(parameter.grad is not None for parameter in net.parameters())
        2
    """
    return path_step(net, mutator, loss_fn, [single_path(mutator.space, seed, step)], backward=backward)


def strict_fair_step(
    net: nn.Module,
    mutator: Mutator,
    loss_fn: LossFunction,
    *,
    seed: int,
    step: int,
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """The gradients of one strictly fair set of architectures, added up: every choice is trained equally often.

    FairNAS (arXiv 1907.01845). Costs as many forwards and backwards as the largest decision has choices. Arguments and
    result as in `single_path_step`; the result is the mean of the losses.
    """
    return path_step(net, mutator, loss_fn, strict_fair(mutator.space, seed, step), backward=backward)


def path_step(
    net: nn.Module,
    mutator: Mutator,
    loss_fn: LossFunction,
    architectures: Sequence[Architecture],
    *,
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """The gradients of the given architectures, added up; what the other steps are made of."""
    return run_paths(net, mutator, lambda _, model: loss_fn(model), architectures, backward=backward)


def run_paths(
    net: nn.Module,
    mutator: Mutator,
    loss_of: Callable[[int, nn.Module], Tensor],
    architectures: Sequence[Architecture],
    *,
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """As `path_step`, for losses that differ: `loss_of` is also given the place of the architecture in the list."""
    check_model(net, mutator)
    ddp = find_ddp(net)
    parameters = list(mutator.model.parameters())
    had_gradient: set[int] = set()
    for parameter in parameters:
        if parameter.grad is not None:
            # `zero_grad(set_to_none=False)` leaves zeros, which would let what is not used drift.
            if parameter.grad.any():
                had_gradient.add(id(parameter))
            else:
                parameter.grad = None
    used: set[int] = set()
    losses = []
    for number, architecture in enumerate(architectures):
        mutator.set_choices(architecture)
        on_path = active_parameters(mutator.model)
        used |= on_path
        is_last = number == len(architectures) - 1
        # DDP reduces once, in the last backward, which therefore has to reach every parameter.
        waiting: AbstractContextManager[None] = nullcontext() if ddp is None or is_last else ddp.no_sync()
        with waiting:
            loss = loss_of(number, net)
            losses.append(loss.detach())
            if ddp is not None and is_last and not ddp.find_unused_parameters:
                loss = loss + zero_of([p for p in parameters if id(p) not in on_path])
            if loss.requires_grad:  # a path may have nothing to train
                backward(loss)
    for parameter in parameters:
        if parameter.grad is not None and id(parameter) not in used and id(parameter) not in had_gradient:
            parameter.grad = None
    return torch.stack(losses).mean()


def check_model(net: nn.Module, mutator: Mutator) -> None:
    """Refuse a model that the mutator sets no choices in: it would compute, and train, the sum of its candidates."""
    model = mutator.model
    if all(module is not model for module in net.modules()) and all(module is not net for module in model.modules()):
        raise StateError(
            f"the mutator belongs to another model; make one of this net (it is of a {type(model).__name__}, which this "
            f"{type(net).__name__} does not hold)"
        )


def zero_of(parameters: Sequence[nn.Parameter]) -> Tensor:
    """A zero that depends on all parameters: the sum of nothing of each, so that not even an infinity shows."""
    nothing = [parameter.reshape(-1)[:0].sum() for parameter in parameters]
    return torch.stack(nothing).sum() if nothing else torch.zeros(())


def find_ddp(net: nn.Module) -> DistributedDataParallel | None:
    """The DDP wrapper in a chain of wrappers (Fabric puts one more around it)."""
    while True:
        if isinstance(net, DistributedDataParallel):
            return net
        inner = net.__dict__.get("_forward_module") or net._modules.get("_forward_module") or net._modules.get("module")
        if inner is None or not isinstance(inner, nn.Module) or inner is net:
            return None
        net = inner
