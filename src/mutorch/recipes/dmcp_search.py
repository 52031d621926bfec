"""The search of DMCP: weights and probabilities of widths are trained in turn, then the best of some samples is taken."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.cost import Budget, CostTable
from mutorch.errors import ConfigError, InfeasibleBudgetError
from mutorch.mutators import MarkovWidths, Mutator
from mutorch.search import cost_loss, expected_cost, expected_widths, sample_widths
from mutorch.space import Architecture
from mutorch.subnet import export
from mutorch.training import markov_arch_step, markov_step, recalibrate_
from mutorch.training.checkpoint import load_checkpoint, save_checkpoint
from mutorch.utils import evaluating

from .data import Batches, Data
from .gradient_loop import seed_torch, sgd
from .progress import Progress
from .prune import loss_of_labels
from .settings import Training

SLACK = 0.05
"""How far below an upper bound, as a share of it, is as good as the bound."""


@dataclass(frozen=True, slots=True)
class WidthSearching:
    """How the probabilities of widths are learned.

    Attributes:
        start: the share of the supernet's steps after which they are; before, all widths are trained alike.
        every: after how many steps of the weights there is one of the probabilities.
        lr, max_norm: of their SGD, falling to a tenth by a cosine; and what the norm of their gradient is clipped to.
        cost_weight: what the distance to the budget counts beside the loss of the task in the beginning.
        cost_growth: what that is multiplied by after each step that leaves expected costs above the budget, and divided by
            after each one that leaves them too far below, so that the budget is met whatever the loss of the task says.
        cost_loss: see `mutorch.search.cost_loss`.
        loss_weight: what labels count for the smaller subnets beside what the widest one says.
        min_share, step: the smallest share of its channels that a unit keeps, and the share of a group of channels.
        candidates: how many widths within the budget are scored with the supernet's weights: the expected ones, and samples.
        calibration: on how many batches each one's BatchNorm statistics are measured.
    """

    start: float = 0.3
    every: int = 1
    lr: float = 0.05
    max_norm: float = 5.0
    cost_weight: float = 0.3
    cost_growth: float = 1.1
    cost_loss: str = "log_l1"
    loss_weight: float = 1.0
    min_share: float = 0.1
    step: float = 0.05
    candidates: int = 20
    calibration: int = 16


class WidthSearch:
    """A supernet and its probabilities while they are trained.

    Args:
        net: a searchable model, in which every unit may have the widths that are searched.
        budget: upper bounds, towards which the expected costs are moved; see `mutorch.Budget`.
        seed: decides everything that is random.

    Attributes:
        mutator, markov, table, budget: of the net.
        passes: forwards and backwards of one subnet on one batch so far; a forward alone counts as a third.
    """

    def __init__(
        self, net: nn.Module, data: Data, budget: Any, training: Training, options: WidthSearching, *, seed: int = 0
    ) -> None:
        self.net, self.data, self.training, self.options, self.seed = net, data, training, options, seed
        self.mutator = Mutator(net)
        self.mutator.set_choices(self.mutator.space.max)
        self.markov = MarkovWidths(self.mutator)
        self.table = CostTable.from_model(self.mutator, data.example_inputs)
        self.budget = Budget.parse(budget, self.table)
        if not any(high < math.inf for _, high in self.budget.bounds.values()):
            raise ConfigError(f"dmcp needs a budget with an upper bound, got {self.budget}")
        self.passes, self._step = 0.0, 0
        self._batches = {split: Batches(data, split, training.batch_size, seed) for split in ("train", "val")}
        self._device = next((p.device for p in net.parameters()), torch.device("cpu"))
        self._optimizer, self._schedule = sgd(net, training.lr, training.weight_decay, training.steps)
        self._first = int(training.steps * options.start)
        self._arch = torch.optim.SGD(self.markov.parameters.values(), lr=options.lr)
        self._cost_weight = options.cost_weight
        steps = max(1, (training.steps - self._first) // options.every)
        self._arch_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._arch, steps, options.lr / 10)

    def train(self, *, checkpoint: Path | None = None, progress: Progress | None = None) -> None:
        """Train to the end, from where the checkpoint was left.

        Errors:
            ResumeError: a checkpoint of another run.
        """
        run = {"seed": self.seed, "steps": self.training.steps, "space": self.mutator.space.fingerprint}
        state = None if checkpoint is None else load_checkpoint(checkpoint, run=run)
        if state is not None:
            self.load_state_dict(state)
        was_training = self.net.training
        self.net.train()
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            while self._step < self.training.steps:
                loss = self.iterate()
                if progress is not None and (self._step % 20 == 0 or self._step == self.training.steps):
                    note = f"loss {float(loss):.3f}, expected {self.expected()}"
                    progress("training supernet and widths", self._step, self.training.steps, note)
                if checkpoint is not None and (self._step % 500 == 0 or self._step == self.training.steps):
                    save_checkpoint(checkpoint, self.state_dict(), run=run)
        self.net.train(was_training)

    def iterate(self) -> Tensor:
        """One step of the weights, and one of the probabilities where it is time; the loss of the weights."""
        seed_torch(self.seed, "step", self._step)
        options = self.options
        loss = markov_step(
            self.net, self.mutator, self._loss("train"), markov=self.markov, seed=self.seed, step=self._step,
            by_probability=self._step >= self._first and self.markov.is_learned, loss_weight=options.loss_weight,
        )  # fmt: skip
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        self.passes += 3
        if self._step >= self._first and (self._step - self._first) % options.every == 0:
            self.mutator.set_choices(self.mutator.space.max)
            markov_arch_step(self.mutator, self.markov, self._loss("val"), cost=self._cost)
            nn.utils.clip_grad_norm_(self.markov.parameters.values(), options.max_norm)
            self._arch.step()
            self._arch.zero_grad()
            self._arch_schedule.step()
            self._balance()
            self.passes += 4 / 3  # the statistics of the widest, and its loss
        self._step += 1
        return loss

    def expected(self) -> str:
        """The expected costs, for people."""
        shares = {metric: float(self._share(metric).detach()) for metric in self.budget.bounds}
        return ", ".join(f"{metric} {share:.1%}" for metric, share in shares.items())

    def best(self, progress: Progress | None = None) -> tuple[Architecture, float]:
        """The candidate within the budget whose validation loss is the smallest, and that loss.

        Candidates are the expected widths, and samples; those are preferred that use 95% of the budget. They are exported, with
        BatchNorm statistics of their own.

        Errors:
            InfeasibleBudgetError: no sample is within the budget.
        """
        count, candidates = self.options.candidates, self._candidates()
        scores = []
        for number, architecture in enumerate(candidates):
            scores.append(self._validation_loss(self.subnet(architecture)))
            if progress is not None:
                progress("scoring samples", number + 1, len(candidates), f"loss {scores[-1]:.3f} of {count}")
        return candidates[scores.index(min(scores))], min(scores)

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A subnet with the supernet's weights and its own BatchNorm statistics: a new plain model."""
        subnet = export(self.net, architecture, mutator=self.mutator)
        recalibrate_(subnet, [inputs for inputs, _ in self._calibration()])
        self.passes += self.options.calibration / 3
        return subnet

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        parts: dict[str, Any] = {"net": self.net, "markov": self.markov, "optimizer": self._optimizer}
        parts |= {"schedule": self._schedule, "arch": self._arch, "arch_schedule": self._arch_schedule}
        numbers = {"step": self._step, "passes": self.passes, "cost_weight": self._cost_weight}
        return {**{name: part.state_dict() for name, part in parts.items()}, **numbers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.net.load_state_dict(state["net"])
        self.markov.load_state_dict(state["markov"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._arch.load_state_dict(state["arch"])
        self._arch_schedule.load_state_dict(state["arch_schedule"])
        self._step, self.passes, self._cost_weight = state["step"], state["passes"], state["cost_weight"]

    def _share(self, metric: str) -> Tensor:
        return expected_cost(self.mutator, self.table, metric, markov=self.markov)

    def _targets(self) -> dict[str, float]:
        """The upper bounds, in shares of the largest cost."""
        bounds = {metric: high for metric, (_, high) in self.budget.bounds.items() if math.isfinite(high)}
        return {metric: high / self.table.reachable(metric)[1] for metric, high in bounds.items()}

    def _cost(self) -> Tensor:
        losses = [
            cost_loss(self._share(m), target, self.options.cost_loss, slack=SLACK)
            for m, target in self._targets().items()
        ]
        return self._cost_weight * torch.stack(losses).sum()

    def _balance(self) -> None:
        """Make the cost count more while the budget is not met, and less where it is met by far."""
        with torch.no_grad():
            ratios = [float(self._share(metric)) / target for metric, target in self._targets().items()]
        if max(ratios) > 1:
            self._cost_weight *= self.options.cost_growth
        elif max(ratios) < 1 - SLACK:
            self._cost_weight /= self.options.cost_growth

    def _candidates(self) -> list[Architecture]:
        bounds = self.budget.bounds
        near = Budget(
            {
                metric: (max(low, (1 - SLACK) * high) if high < math.inf else low, high)
                for metric, (low, high) in bounds.items()
            }
        )
        self.mutator.set_choices(self.mutator.space.max)
        parts = self.mutator, self.markov, self.table
        first = expected_widths(*parts, self.budget)
        options: dict[str, Any] = {"count": self.options.candidates, "seed": self.seed}
        found = sample_widths(*parts, self.budget, **options)
        with suppress(InfeasibleBudgetError):
            found = sample_widths(*parts, near, **options)
        return [first, *(one for one in found if one != first)][: self.options.candidates]

    def _calibration(self) -> list[tuple[Tensor, Tensor]]:
        batches = Batches(self.data, "train", self.training.batch_size, self.seed)
        return [tuple(tensor.to(self._device) for tensor in batches.at(n)) for n in range(self.options.calibration)]  # type: ignore[misc]

    def _validation_loss(self, model: nn.Module) -> float:
        total = count = 0.0
        with evaluating(model), torch.inference_mode():
            for inputs, labels in self.data.loader("val", 512):
                total += float(loss_of_labels(model, (inputs.to(self._device), labels.to(self._device)))) * len(labels)
                count += len(labels)
        self.passes += count / self.training.batch_size / 3
        return total / count

    def _loss(self, split: str) -> Callable[[nn.Module], Tensor]:
        inputs, labels = (tensor.to(self._device) for tensor in self._batches[split].at(self._step))
        return lambda model: loss_of_labels(model, (inputs, labels))
