"""Steps that train several sizes at once, the smaller ones on what the largest says."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.mutators import Mutator
from mutorch.space import Architecture

from .architectures import sandwiched
from .distill import Distill, InPlaceDistillation, soft_cross_entropy
from .steps import LossFunction, run_paths


def sandwich_step(
    net: nn.Module,
    mutator: Mutator,
    loss_fn: LossFunction,
    *,
    seed: int,
    step: int,
    num_random: int = 2,
    distill: Distill | bool = True,
    loss_weight: float = 0.0,
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """The gradients of the largest, the smallest and some random architectures, added up; the caller steps and zeroes.

    The sandwich rule (US-Nets, arXiv 1903.05134; BigNAS, arXiv 2003.11142): what all architectures can do lies between the
    largest and the smallest. The largest learns from `loss_fn`; the others learn to say what it says (in-place
    distillation), which costs no forward more. Costs `2 + num_random` forwards and backwards.

    The step is a pure function of seed and step, as every step is; it runs under DistributedDataParallel with its default
    settings, and architectures obey the constraints of the space. The last one stays set afterwards. Running statistics of
    batch norms mix all of them: recalibrate before you evaluate.

    Args:
        net: the model that `loss_fn` is called with: the supernet, or its DDP or Fabric wrapper.
        seed, step: determine the random architectures, together and alone.
        distill: compares the outputs of an architecture with those of the largest, which are detached:
            `soft_cross_entropy` unless given. `False`: all learn from `loss_fn`.
        loss_weight: how much of `loss_fn` the others learn from beside the largest: 0 as US-Nets and BigNAS, 1 as AutoSlim.
        backward: what to do with each loss: `fabric.backward`, or `lambda loss: scaler.scale(loss).backward()`.

    Returns:
        The mean of the losses, detached.

    Errors:
        ConfigError: `num_random` below zero; outputs that cannot be compared.

    Example:
        >>> from mutorch import searchable
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> net = searchable(model, torch.zeros(1, 4))
        >>> x, y = torch.ones(8, 4), torch.zeros(8, dtype=torch.long)
        >>> loss = sandwich_step(net, Mutator(net), lambda m: nn.functional.cross_entropy(m(x), y), seed=0, step=0)
        >>> all(parameter.grad is not None for parameter in net.parameters())
        True
    """
    architectures = sandwiched(mutator.space, seed, step, num_random)
    return run_paths(net, mutator, losses_of(loss_fn, distill, loss_weight), architectures, backward=backward)


def slimmable_step(
    net: nn.Module,
    mutator: Mutator,
    loss_fn: LossFunction,
    architectures: Sequence[Architecture],
    *,
    distill: Distill | bool = False,
    loss_weight: float = 0.0,
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """The gradients of a fixed list of architectures, added up: the same ones at every step.

    Slimmable networks (Yu et al. 2019, arXiv 1812.08928), whose batch norms have weights and statistics for each width
    (`SlimmableChannelUnit`), so that nothing needs to be recalibrated.

    Args:
        architectures: all that the network is for, the largest first: with `distill`, it teaches the others.
        distill, loss_weight, net, backward: as in `sandwich_step`; every one learns from `loss_fn` alone unless given.

    Returns:
        The mean of the losses, detached.

    Errors:
        ConfigError: no architectures; outputs that cannot be compared.
        SpaceError, ChoiceError: one that the space does not have; nothing has been computed.
    """
    if not architectures:
        raise ConfigError("a slimmable step trains the architectures that it is given, and there are none")
    for architecture in architectures:
        mutator.space.validate(architecture)
    return run_paths(net, mutator, losses_of(loss_fn, distill, loss_weight), architectures, backward=backward)


def losses_of(
    loss_fn: LossFunction, distill: Distill | bool, loss_weight: float, teacher: nn.Module | None = None
) -> Callable[[int, nn.Module], Tensor]:
    """What each architecture of a step learns from; takes its place in the list and the model."""
    if distill is False:
        return lambda _, model: loss_fn(model)
    if distill is not True and not callable(distill):
        raise ConfigError(f"distill is True, False or a function of two outputs, got {distill!r}")
    return InPlaceDistillation(loss_fn, soft_cross_entropy if distill is True else distill, loss_weight, teacher)
