"""Search with a controller (ENAS, arXiv 1802.03268): shared weights and controller are trained in turn."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mutorch.mutators import EnasMutator
from mutorch.space import Architecture, random_at
from mutorch.training import Baseline, child_step, controller_step
from mutorch.training.checkpoint import load_checkpoint, save_checkpoint

from .data import Batches, Data
from .gradient_loop import seed_torch, sgd
from .progress import Progress

AUXILIARY_WEIGHT = 0.4
"""Of the loss of a second classifier, where a model in training gives two outputs."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of training both came to.

    Attributes:
        number: from 1.
        loss: the mean training loss of the weights.
        reward: the mean reward of the controller's samples.
        entropy: of the samples' distributions after the round, in nats; it falls as the controller decides.
        architecture: the likeliest after the round.
    """

    number: int
    loss: float
    reward: float
    entropy: float
    architecture: Architecture


def search_by_controller(
    net: nn.Module,
    mutator: EnasMutator,
    data: Data,
    *,
    rounds: int = 10,
    child_steps: int = 150,
    controller_steps: int = 15,
    num_samples: int = 6,
    batch_size: int = 64,
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    controller_lr: float = 2e-2,
    entropy_weight: float = 1e-2,
    skip_weight: float = 0.8,
    baseline_decay: float = 0.95,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> list[Round]:
    """Train shared weights on training data and the controller on validation data, in turn. Both are trained in place.

    Weights: SGD, Nesterov momentum 0.9, cosine, gradients clipped to 5; each step on a fresh sample. Controller: Adam; the
    reward is the accuracy on one batch, the same for all samples of a step, and BatchNorm normalizes by it. Everything random is a
    function of seed and step, so a search that was interrupted and started again with the same line ends the same. What is drawn
    meanwhile need not keep to constraints between choices; proposals do.

    The defaults are for short searches. Published are 310 rounds of an epoch and 50 x 20 samples, `controller_lr=3.5e-4`,
    `entropy_weight=1e-4` and `baseline_decay=0.999`.

    Args:
        net: a supernet of `LayerChoice` and `InputChoice`.
        mutator: of this net.
        rounds: how often both are trained.
        child_steps: steps of the weights a round.
        controller_steps: steps of the controller a round, with `num_samples` forwards each.
        batch_size, lr, weight_decay: of the weights' training.
        controller_lr, entropy_weight, skip_weight, baseline_decay: see `controller_step` and `Baseline`.
        checkpoint: a file to write after each round, and to resume from.
        progress: called then too, with a line of text.

    Errors:
        ResumeError: the checkpoint belongs to another search.
    """
    loop = _Loop(net, mutator, data, rounds * child_steps, batch_size, lr, weight_decay, controller_lr, seed)
    loop.baseline.decay = baseline_decay
    run: dict[str, Any] = {
        "rounds": rounds,
        "child_steps": child_steps,
        "controller_steps": controller_steps,
        "seed": seed,
    }
    run |= {"num_samples": num_samples, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
    run |= {"controller_lr": controller_lr, "entropy_weight": entropy_weight, "skip_weight": skip_weight}
    run |= {"baseline_decay": baseline_decay, "space": mutator.space.fingerprint}
    state = None if checkpoint is None else load_checkpoint(checkpoint, run=run)
    if state is not None:
        loop.load_state_dict(state)
    training = net.training
    net.train()
    devices = {parameter.device for parameter in net.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices=list(devices)):
        for number in range(len(loop.rounds), rounds):
            loss = loop.train_weights(child_steps, number * child_steps)
            reward = loop.train_controller(
                controller_steps,
                number * controller_steps,
                num_samples=num_samples,
                entropy_weight=entropy_weight,
                skip_weight=skip_weight,
            )
            loop.look(number + 1, loss, reward)
            if checkpoint is not None:
                save_checkpoint(checkpoint, loop.state_dict(), run=run)
            if progress is not None:
                progress("training weights and controller", number + 1, rounds, described(loop.rounds[-1]))
    net.train(training)
    return loop.rounds


class _Loop:
    """The two trainings, and all that the next round depends on."""

    def __init__(
        self,
        net: nn.Module,
        mutator: EnasMutator,
        data: Data,
        steps: int,
        batch_size: int,
        lr: float,
        weight_decay: float,
        controller_lr: float,
        seed: int,
    ) -> None:
        self.net, self.mutator, self.seed = net, mutator, seed
        self.rounds: list[Round] = []
        self.baseline = Baseline()
        self._batches = {split: Batches(data, split, batch_size, seed) for split in ("train", "val")}
        self._device = next((p.device for p in net.parameters()), torch.device("cpu"))
        self._optimizer, self._schedule = sgd(net, lr, weight_decay, steps)
        self._controller = torch.optim.Adam(mutator.parameters(), lr=controller_lr)

    def train_weights(self, count: int, first: int) -> float:
        """Steps of the weights; the mean loss."""
        losses = []
        for step in range(first, first + count):
            self._seed("child", step)
            losses.append(child_step(self.net, self.mutator, self._judge("train", step, _loss)))
            self._optimizer.step()
            self._optimizer.zero_grad()
            self._schedule.step()
        return float(torch.stack(losses).mean())

    def train_controller(self, count: int, first: int, **options: Any) -> float:
        """Steps of the controller; the mean reward."""
        rewards = []
        for step in range(first, first + count):
            self._seed("controller", step)
            reward = self._judge("val", step, _accuracy)
            rewards.append(controller_step(self.mutator, reward, self.baseline, **options))
            self._controller.step()
            self._controller.zero_grad()
        return float(torch.stack(rewards).mean())

    @torch.no_grad()
    def look(self, number: int, loss: float, reward: float) -> None:
        """Note how far the controller is."""
        self._seed("look", number)
        entropies = []
        for _ in range(10):
            self.mutator.reset()
            entropies.append(float(self.mutator.sample_entropy))
        self.rounds.append(Round(number, loss, reward, sum(entropies) / len(entropies), self.mutator.likeliest()))

    def state_dict(self) -> dict[str, Any]:
        """All that the next round depends on."""
        parts: dict[str, Any] = {
            "net": self.net,
            "mutator": self.mutator,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
        }
        parts |= {"controller": self._controller, "baseline": self.baseline}
        states = {name: part.state_dict() for name, part in parts.items()}
        return {**states, "rounds": [asdict(one) for one in self.rounds]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.net.load_state_dict(state["net"])
        self.mutator.load_state_dict(state["mutator"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._controller.load_state_dict(state["controller"])
        self._schedule.load_state_dict(state["schedule"])
        self.baseline.load_state_dict(state["baseline"])
        self.rounds = [Round(**one) for one in state["rounds"]]

    def _seed(self, *position: int | str) -> None:
        seed_torch(self.seed, *position)
        self.mutator.generator.manual_seed(random_at(self.seed, "draw", *position).getrandbits(63))

    def _judge(self, split: str, step: int, judge: Callable[[Any, Tensor], Tensor]) -> Callable[[nn.Module], Tensor]:
        inputs, labels = (tensor.to(self._device) for tensor in self._batches[split].at(step))
        return lambda model: judge(model(inputs), labels)


def _loss(output: Any, labels: Tensor) -> Tensor:
    if isinstance(output, tuple):
        logits, auxiliary = output
        return F.cross_entropy(logits, labels) + AUXILIARY_WEIGHT * F.cross_entropy(auxiliary, labels)
    return F.cross_entropy(output, labels)


def _accuracy(output: Any, labels: Tensor) -> Tensor:
    logits = output[0] if isinstance(output, tuple) else output
    accuracy: Tensor = (logits.argmax(dim=1) == labels).float().mean()
    return accuracy


def described(found: Round) -> str:
    """A round as a line of text."""
    choices = ", ".join(f"{name} {choice}" for name, choice in list(found.architecture.items())[:4])
    return f"reward {found.reward:.3f}, entropy {found.entropy:.1f}: {choices}"
