"""Steps of a search with a controller (ENAS, arXiv 1802.03268), for the user's own loop with two optimizers.

`child_step` trains the shared weights on one sample of the mutator, `controller_step` makes samples more probable that are
better than usual. The caller owns the loop, the optimizers and their order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.mutators import EnasMutator, MaskMutator

from .differentiable import _averaged, _buffers_kept
from .steps import LossFunction

RewardFunction = Callable[[nn.Module], Tensor | float]
"""Takes the model, returns what to maximise: `lambda model: accuracy(model(x), y)`."""


@dataclass(slots=True)
class Baseline:
    """What a reward is compared with: the mean of those before, the later ones counting more.

    It begins at the first reward: weights of rewards that there were not are left out of the mean.

    Args:
        decay: how much the mean keeps at each reward.

    Example:
        >>> baseline = Baseline(decay=0.5)
        >>> baseline.update(3.0)
        >>> baseline.value
        3.0
        >>> baseline.update(0.0)
        >>> baseline.value
        1.0
    """

    decay: float = 0.999
    total: float = 0.0
    weight: float = 0.0

    @property
    def value(self) -> float | None:
        """The mean; `None` before the first reward."""
        return self.total / self.weight if self.weight else None

    def update(self, reward: float) -> None:
        """Take a reward into the mean."""
        self.total = self.decay * self.total + (1 - self.decay) * reward
        self.weight = self.decay * self.weight + (1 - self.decay)

    def state_dict(self) -> dict[str, float]:
        """All that `load_state_dict` needs."""
        return {"total": self.total, "weight": self.weight}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on where `state_dict` was taken."""
        self.total, self.weight = state["total"], state["weight"]


def child_step(
    net: nn.Module,
    mutator: MaskMutator,
    loss_fn: LossFunction,
    *,
    max_norm: float | None = 5.0,
    backward: Callable[[Tensor], Any] = torch.Tensor.backward,
) -> Tensor:
    """Draw one architecture, compute its loss and its gradients, and clip them; the caller steps and zeroes the optimizer.

    What was not drawn keeps `grad is None`, so that no optimizer moves it. The sample stays in force afterwards. All ranks draw
    the same, if their mutators were made with one seed; DistributedDataParallel needs `find_unused_parameters=True`.

    Args:
        net: the model that `loss_fn` is called with: the supernet, or its DDP or Fabric wrapper.
        mutator: an `EnasMutator`, or any that draws at `reset()`.
        max_norm: what the norm of the gradients is clipped to; `None`: not at all, as with a scaler for mixed precision.
        backward: what to do with the loss: `fabric.backward`, or `lambda loss: scaler.scale(loss).backward()`.

    Returns:
        The loss, detached.

    Example:
        >>> from mutorch.mutables import LayerChoice
        >>> net = nn.Sequential(LayerChoice({"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)}))
        >>> loss = child_step(net, EnasMutator(net), lambda m: m(torch.ones(4, 2)).sum())
        >>> sum(parameter.grad is not None for parameter in net.parameters())
        2
    """
    parameters = list(mutator.model.parameters())
    for parameter in parameters:
        # `zero_grad(set_to_none=False)` leaves zeros, which would let what is not used drift.
        if parameter.grad is not None and not parameter.grad.any():
            parameter.grad = None
    with torch.no_grad():
        mutator.reset()
    loss = loss_fn(net)
    if loss.requires_grad:  # a sample may have nothing to train
        backward(loss)
    if max_norm is not None:
        nn.utils.clip_grad_norm_(parameters, max_norm)
    return loss.detach()


def controller_step(
    mutator: EnasMutator,
    reward_fn: RewardFunction,
    baseline: Baseline,
    *,
    num_samples: int = 20,
    entropy_weight: float = 1e-4,
    skip_weight: float = 0.8,
    max_norm: float | None = 5.0,
) -> Tensor:
    """The gradients of the controller by the rewards of samples; the caller steps and zeroes its optimizer.

    The mean over samples of -(R - b) log p - entropy_weight * H + skip_weight * K, with R = reward + entropy_weight * H, the
    baseline b of the rewards before, and the sample's log-probability, entropy and skip penalty: without K, its expected
    gradient is that of E[reward] + entropy_weight * entropy. Forwards are without gradients and in the mode that the model is
    in; in training mode BatchNorm normalizes by the batch, and its statistics stay as they are. Rewards are averaged over the
    processes of torch.distributed, so that all ranks have the same gradients if they draw the same.

    Args:
        reward_fn: see `RewardFunction`; of other data than the weights train on.
        baseline: is updated.
        num_samples: how many architectures are judged.
        max_norm: what the norm of the gradients is clipped to; `None`: not at all.

    Returns:
        The mean reward.

    Errors:
        ConfigError: fewer than one sample.

    Example:
        >>> from mutorch.mutables import LayerChoice
        >>> net = nn.Sequential(LayerChoice({"a": nn.Identity(), "b": nn.ReLU()}))
        >>> mutator, baseline = EnasMutator(net), Baseline()
        >>> reward = controller_step(mutator, lambda m: m(-torch.ones(1)).sum(), baseline, num_samples=8)
        >>> -1 <= float(reward) <= 0, all(parameter.grad is not None for parameter in mutator.controller.heads.parameters())
        (True, True)
    """
    if num_samples < 1:
        raise ConfigError(f"a step of the controller needs at least one sample, got num_samples={num_samples}")
    rewards, drawn = [], []
    with _buffers_kept(mutator.model):
        for _ in range(num_samples):
            mutator.reset()
            drawn.append((mutator.sample_log_prob, mutator.sample_entropy, mutator.sample_skip_penalty))
            with torch.no_grad():
                rewards.append(torch.as_tensor(reward_fn(mutator.model)).detach().float())
    (rewarded,) = _averaged([torch.stack(rewards)])
    losses = []
    for reward, (log_prob, entropy, skip_penalty) in zip(rewarded.tolist(), drawn, strict=True):
        total = reward + entropy_weight * float(entropy.detach())
        advantage = total - (total if baseline.value is None else baseline.value)
        baseline.update(total)
        losses.append(skip_weight * skip_penalty - advantage * log_prob - entropy_weight * entropy)
    loss = torch.stack(losses).mean()
    if loss.requires_grad:  # there may be nothing to decide
        torch.autograd.backward(loss)
    if max_norm is not None:
        nn.utils.clip_grad_norm_(mutator.parameters(), max_norm)
    return rewarded.mean()
