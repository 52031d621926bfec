"""Steps of differentiable search, for the user's own loop with two optimizers: one for weights, one for the architecture.

Each function leaves gradients in `.grad` of what it names and of nothing else, so that `optimizer.step()` is the caller's, as
are clipping, AMP and the order of steps. Everything random is a function of `seed` and `step`. The architecture's gradients are
averaged over the processes of torch.distributed, where there are some; the weights' as always, by DistributedDataParallel.

| method                        | weights                      | architecture                                             |
|-------------------------------|------------------------------|----------------------------------------------------------|
| DARTS, first order            | `relaxed_step`               | `arch_step`                                              |
| DARTS, second order           | `relaxed_step`               | `unrolled_arch_step`                                     |
| GDAS                          | `relaxed_step`               | `arch_step`, with `Gumbel(single_path=True)`             |
| ProxylessNAS, gates           | `relaxed_step` (`OneHot()`)  | `arch_step` (`TwoPaths()`)                               |
| DSNAS                         | `joint_step` (`OneHot()`), then `Mutator.settle`                                        |
| ProxylessNAS-R, ENAS: samples | `path_step`                  | `policy_step`                                            |
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from mutorch.errors import ConfigError
from mutorch.mutables import Relaxation
from mutorch.mutators import Mutator, active_parameters
from mutorch.space import random_at

from .steps import LossFunction, find_ddp, zero_of

Backward = Callable[[Tensor], Any]


def relaxed_step(
    net: nn.Module,
    mutator: Mutator,
    loss_fn: LossFunction,
    *,
    seed: int,
    step: int,
    relaxation: Relaxation | None = None,
    backward: Backward = torch.Tensor.backward,
) -> Tensor:
    """The gradients of the weights, with the architecture as it is.

    Args:
        net: the model that `loss_fn` is called with: the supernet, or its DDP or Fabric wrapper.
        seed, step: determine noise and paths.
        relaxation: replaces that of the mutables from this step on.
        backward: what to do with the loss: `fabric.backward`, or `lambda loss: scaler.scale(loss).backward()`.

    Returns:
        The loss, detached.
    """
    mutator.draw(seed=seed, step=step, relaxation=relaxation)
    with _constant(mutator.arch_parameters()):
        return _weights_backward(net, mutator, loss_fn, backward)


def arch_step(
    net: nn.Module,
    mutator: Mutator,
    loss_fn: LossFunction,
    *,
    seed: int,
    step: int,
    relaxation: Relaxation | None = None,
    backward: Backward = torch.Tensor.backward,
) -> Tensor:
    """The gradients of the architecture parameters, with the weights as they are: DARTS of first order.

    `loss_fn` is given the supernet without its DDP wrapper, whose reduction would wait for the weights. BatchNorm statistics
    stay as they are: those of training batches count. Arguments and result as for `relaxed_step`; the loss should be that of
    other data than the weights train on.

    Example:
        >>> from mutorch.mutables import DiffMutableOP
        >>> net = nn.Sequential(DiffMutableOP({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)}))
        >>> mutator = Mutator(net)
        >>> mutator.prepare_arch_params()
        >>> loss = arch_step(net, mutator, lambda m: m(torch.ones(4, 2)).sum(), seed=0, step=0)
        >>> [p.grad is not None for p in mutator.arch_parameters()], [p.grad for p in net.parameters()]
        ([True], [None, None, None, None])
    """
    model = mutator.model
    mutator.draw(seed=seed, step=step, relaxation=relaxation)
    parameters = mutator.arch_parameters()
    with _constant(mutator.weight_parameters()), _buffers_kept(model), _own_gradients(parameters):
        loss = loss_fn(model)
        backward(loss)
    return loss.detach()


def joint_step(
    net: nn.Module,
    mutator: Mutator,
    loss_fn: LossFunction,
    *,
    seed: int,
    step: int,
    relaxation: Relaxation | None = None,
    backward: Backward = torch.Tensor.backward,
) -> Tensor:
    """The gradients of weights and architecture from one forward and backward, as DSNAS has it. As `relaxed_step`."""
    mutator.draw(seed=seed, step=step, relaxation=relaxation)
    with _own_gradients(mutator.arch_parameters()):
        return _weights_backward(net, mutator, loss_fn, backward)


def unrolled_arch_step(
    mutator: Mutator,
    train_loss_fn: LossFunction,
    loss_fn: LossFunction,
    optimizer: Optimizer,
    *,
    seed: int,
    step: int,
    relaxation: Relaxation | None = None,
    epsilon: float = 0.01,
) -> Tensor:
    """The gradients of the architecture parameters through one virtual step of SGD: DARTS of second order.

    With w' = w - lr (momentum * buffer + dL_train/dw + weight_decay * w), the gradient of L(w'(a), a) is
    dL/da(w') - lr * (d2 L_train / da dw) dL/dw'. The product with the second derivative is the central difference of
    dL_train/da at w +- e dL/dw', e = epsilon / |dL/dw'| (arXiv 1806.09055, section 2.3). Weights and buffers are as before
    afterwards. Costs four forwards and backwards. Full precision only.

    Args:
        train_loss_fn: the loss that the next step of the weights will have.
        loss_fn: the loss to judge by, of other data.
        optimizer: the weights' own, a `torch.optim.SGD` (without Nesterov momentum or dampening, which are ignored): learning
            rates, momenta and buffers are read.

    Errors:
        ConfigError: an optimizer that is no SGD.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        raise ConfigError(
            f"the virtual step is one of SGD, got {type(optimizer).__name__}; use arch_step, which needs none"
        )
    model = mutator.model
    mutator.draw(seed=seed, step=step, relaxation=relaxation)
    arch = mutator.arch_parameters()
    weights = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    rates = [group["lr"] for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    if len(set(rates)) > 1:
        raise ConfigError(f"the virtual step has one learning rate, the optimizer's groups have {sorted(set(rates))}")
    before = [weight.detach().clone() for weight in weights]
    with _buffers_kept(model):
        gradients = _gradients(train_loss_fn(model), weights)
        try:
            with torch.no_grad():
                moves = _sgd_moves(optimizer, gradients)
                for weight, move in zip(weights, moves, strict=True):
                    weight.sub_(move)
            loss = loss_fn(model)
            found = _gradients(loss, [*arch, *weights])
            direct, vector = found[: len(arch)], found[len(arch) :]
            size = epsilon / torch.stack([v.double().square().sum() for v in vector]).sum().sqrt().clamp_min(1e-30)
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    for weight, old, v in zip(weights, before, vector, strict=True):
                        weight.copy_(old + sign * size.to(old) * v)
                sides.append(_gradients(train_loss_fn(model), arch))
        finally:
            with torch.no_grad():
                for weight, old in zip(weights, before, strict=True):
                    weight.copy_(old)
    for parameter, first, plus, minus in zip(arch, direct, *sides, strict=True):
        second = (plus - minus) / (2 * size.to(plus))
        gradient = (first - rates[0] * second).to(parameter.dtype)
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    return loss.detach()


def policy_step(
    mutator: Mutator,
    loss_fn: LossFunction,
    *,
    seed: int,
    step: int,
    num_samples: int = 4,
) -> Tensor:
    """The gradients of the architecture parameters by the score function: sampled architectures, judged by their loss.

    Needs no gradient through the network, only `num_samples` forwards without one: each architecture a is drawn from the
    product of the softmaxes, and the estimate of dE[L]/da is the mean of (L - mean of the other losses) * d log p / da
    (REINFORCE; the baseline is that of Kool, van Hoof and Welling, 2019). Where a gate before a normalised convolution has no
    gradient, this does: see `docs/differentiable-search.md`. All samples see the same batch, BatchNorm normalises by it, and
    its statistics stay as they are.

    Decisions of routes with their own parameter are drawn as by `Mutator.sample_probable`; their probability is that of a
    sample without replacement, in the drawn edges' order of the space.

    Returns:
        The mean loss.

    Errors:
        ConfigError: fewer than two samples.
    """
    if num_samples < 2:
        raise ConfigError(f"the baseline needs at least two samples, got num_samples={num_samples}")
    generator = random_at(seed, "policy", step)
    losses, logs = [], []
    model = mutator.model
    for _ in range(num_samples):
        architecture = mutator.sample_probable(generator)
        with mutator.at(architecture), torch.no_grad(), _buffers_kept(model):
            losses.append(loss_fn(model).detach().float())
        logs.append(mutator.arch.log_probability(architecture))
    values = _averaged([torch.stack(losses)])[0]
    advantages = (values - values.mean()) * num_samples / (num_samples - 1)
    surrogate = torch.stack([a.to(log) * log for a, log in zip(advantages, logs, strict=True)]).mean()
    torch.autograd.backward(surrogate)
    return values.mean()


# ---- parts ---------------------------------------------------------------------------------------------------------------


def _weights_backward(net: nn.Module, mutator: Mutator, loss_fn: LossFunction, backward: Backward) -> Tensor:
    ddp = find_ddp(net)
    parameters = mutator.weight_parameters()
    active = active_parameters(mutator.model)
    idle = [p for p in parameters if id(p) not in active]
    # What does not compute keeps its gradient as it is: none, where it was zeroed.
    kept = [None if p.grad is None or not p.grad.any() else p.grad.clone() for p in idle] if idle else []
    loss = loss_fn(net)
    total = loss
    if ddp is not None and idle and not ddp.find_unused_parameters:
        total = loss + zero_of(idle)
    backward(total)
    for parameter, gradient in zip(idle, kept, strict=True):
        parameter.grad = gradient
    return loss.detach()


@contextmanager
def _constant(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Parameters that get no gradient inside the `with`; backward does not even compute them."""
    before = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, required in zip(parameters, before, strict=True):
            parameter.requires_grad_(required)


@contextmanager
def _own_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """What backward adds to these parameters' gradients inside is averaged over processes; all get one, zeros at least."""
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    yield
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    for parameter, gradient, old in zip(parameters, _averaged(found), before, strict=True):
        parameter.grad = gradient if old is None else old + gradient


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return _averaged([torch.zeros_like(p) if gradient is None else gradient for gradient, p in pairs])


def _sgd_moves(optimizer: torch.optim.SGD, gradients: Sequence[Tensor]) -> list[Tensor]:
    moves = []
    waiting = iter(gradients)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not parameter.requires_grad:
                continue
            move = next(waiting) + group["weight_decay"] * parameter
            buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
            if group["momentum"] and buffer is not None:
                move = move + group["momentum"] * buffer
            moves.append(group["lr"] * move)
    return moves


def _averaged(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The means over all processes."""
    found = list(tensors)
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        flat = torch.cat([tensor.reshape(-1) for tensor in found])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        parts = torch.split(flat, [tensor.numel() for tensor in found])
        return [part.view_as(tensor).to(tensor.dtype, copy=True) for part, tensor in zip(parts, found, strict=True)]
    return found
