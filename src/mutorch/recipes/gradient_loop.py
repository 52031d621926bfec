"""The steps of one search by gradient, and what they cost."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mutorch.cost.table import CostTable
from mutorch.mutators import Mutator
from mutorch.search import expected_cost
from mutorch.space import random_at
from mutorch.training import (
    arch_step,
    joint_step,
    path_step,
    policy_step,
    relaxed_step,
    single_path,
    unrolled_arch_step,
)

from .data import Batches, Data
from .methods import Method


class Loop:
    """The steps of one search; `search_by_gradient` decides when to look at it and when to stop.

    Attributes:
        spent: path-steps so far.
        step: steps so far.
        skip_dropout: the rate that falls to 0 over the search.
    """

    def __init__(
        self,
        net: nn.Module,
        mutator: Mutator,
        data: Data,
        method: Method,
        path_steps: int,
        batch_size: int,
        lr: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        self.net, self.mutator, self.method, self.seed = net, mutator, method, seed
        self.spent = self.step = 0
        self.skip_dropout = 0.0
        self._batches = {split: Batches(data, split, batch_size, seed) for split in ("train", "val")}
        self._device = next((p.device for p in net.parameters()), torch.device("cpu"))
        self._path_steps, self._warm = path_steps, int(path_steps * method.warmup)
        self._most = max(len(parameter) for parameter in mutator.arch_parameters())
        left = (path_steps - self._warm) // (self._cost_of_weights + self._cost_of_architecture)
        self.optimizer, self._schedule = sgd(net, lr, weight_decay, self._warm + max(1, left))
        self._arch = torch.optim.Adam(mutator.arch_parameters(), lr=method.arch_lr, betas=(0.5, 0.999))
        self._price: tuple[float, CostTable] | None = None

    def set_cost(self, weight: float, data: Data) -> None:
        """Add the expected multiply-adds to the architecture's loss."""
        if weight:
            self._price = weight, CostTable.from_model(self.mutator, data.example_inputs)
            self.mutator.relax()

    @property
    def is_learning(self) -> bool:
        """Whether the architecture is learned by now."""
        return self.spent > self._warm

    @property
    def done(self) -> float:
        """The share of the learning that is over."""
        return max(0, self.spent - self._warm) / max(1, self._path_steps - self._warm)

    def iterate(self) -> None:
        """One step of the weights, and one of the architecture before it."""
        method = self.method
        options: dict[str, Any] = {"seed": self.seed, "step": self.step}
        seed_torch(self.seed, "step", self.step)
        arch, weights = method.at(self.done)
        for members in self.mutator.arch.mutables.values() if self.skip_dropout else ():
            for mutable in members:
                mutable.skip_dropout = self.skip_dropout * (1 - self.done)
        train = self._loss("train")
        if self.spent < self._warm:
            path_step(self.net, self.mutator, train, [single_path(self.mutator.space, self.seed, self.step)])
            self.spent += 1
            self._update(self.optimizer)
        elif method.arch == "joint":
            self._relax()
            joint_step(self.net, self.mutator, train, relaxation=arch, **options)
            self._add_price()
            self.spent += self._cost_of_weights
            self._update(self.optimizer, self._arch)
            if method.fix_threshold < 1:
                self.mutator.settle(method.fix_threshold)
        else:
            self._learn(options, train, arch)
            self._add_price()
            self._update(self._arch)
            self._train(options, train, weights)
            self._update(self.optimizer)
            self.spent += self._cost_of_architecture + self._cost_of_weights
        self._schedule.step()
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        parts = {"net": self.net, "mutator": self.mutator, "optimizer": self.optimizer}
        parts |= {"arch": self._arch, "schedule": self._schedule}
        states = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
        return {**states, "spent": self.spent, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.net.load_state_dict(state["net"])
        self.mutator.load_state_dict(state["mutator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._arch.load_state_dict(state["arch"])
        self._schedule.load_state_dict(state["schedule"])
        self.spent, self.step = state["spent"], state["step"]

    @property
    def _cost_of_weights(self) -> int:
        return 1 if self.method.weights is None else (self.method.weights.num_paths or self._most)

    @property
    def _cost_of_architecture(self) -> int:
        paths = self.method.relaxation.num_paths or self._most
        return {"gradient": paths, "unrolled": 4 * paths, "joint": 0, "policy": self.method.num_samples}[
            self.method.arch
        ]

    def _learn(self, options: dict[str, Any], train: Callable[[nn.Module], Tensor], relaxation: Any) -> None:
        val = self._loss("val")
        if self.method.arch == "policy":
            policy_step(self.mutator, val, num_samples=self.method.num_samples, **options)
            return
        self._relax()
        if self.method.arch == "unrolled":
            unrolled_arch_step(self.mutator, train, val, self.optimizer, relaxation=relaxation, **options)
        else:
            arch_step(self.net, self.mutator, val, relaxation=relaxation, **options)

    def _train(self, options: dict[str, Any], train: Callable[[nn.Module], Tensor], relaxation: Any) -> None:
        if relaxation is None:
            drawn = self.mutator.sample_probable(random_at(self.seed, "weights", self.step))
            path_step(self.net, self.mutator, train, [drawn])
        else:
            relaxed_step(self.net, self.mutator, train, relaxation=relaxation, **options)

    def _relax(self) -> None:
        if self.method.arch != "joint" or self.step == self._warm:
            self.mutator.relax()

    def _add_price(self) -> None:
        if self._price is not None:
            weight, table = self._price
            torch.autograd.backward(weight * expected_cost(self.mutator, table))

    def _update(self, *optimizers: torch.optim.Optimizer) -> None:
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def _loss(self, split: str) -> Callable[[nn.Module], Tensor]:
        inputs, labels = (tensor.to(self._device) for tensor in self._batches[split].at(self.step))
        return lambda model: F.cross_entropy(model(inputs), labels)


def sgd(net: nn.Module, lr: float, weight_decay: float, steps: int) -> tuple[torch.optim.SGD, Any]:
    """The optimizer of weights, and its schedule."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def seed_torch(seed: int, *position: int | str) -> None:
    """Seed what torch draws next, such as dropout, by a place in the run."""
    value = random_at(seed, *position).getrandbits(63)
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(value)
