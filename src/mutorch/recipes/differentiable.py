"""Search by gradient: DARTS, GDAS, DSNAS, ProxylessNAS, and sampled architectures, as one loop that a method fills in.

The budget is counted in path-steps: the forward and backward of one path on one batch. A mixed step over four candidates
costs four of them, a forward without backward is counted as a whole one. So methods that compute different amounts a step
can be compared, and a random architecture can be given what the search had.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mutorch.errors import ConfigError, nearest
from mutorch.mutables import Gumbel, OneHot, Relaxation, Softmax, TwoPaths
from mutorch.mutators import Mutator
from mutorch.space import Architecture, random_at
from mutorch.subnet import export
from mutorch.training import (
    CollapseMeter,
    Reading,
    arch_step,
    joint_step,
    path_step,
    policy_step,
    relaxed_step,
    single_path,
    unrolled_arch_step,
)
from mutorch.utils import evaluating


@dataclass(frozen=True, slots=True)
class Method:
    """How a search learns.

    Attributes:
        arch: what gives the architecture its gradient: `"gradient"` (`arch_step`), `"unrolled"`, `"joint"` (with the
            weights, from the same forward), or `"policy"` (`policy_step`).
        relaxation: of the architecture's steps.
        weights: the relaxation of the weights' steps; `None`: one architecture a step, drawn by probability.
        warmup: the share of the path-steps that trains weights alone, by uniform single paths.
        arch_lr: the learning rate of the architecture (Adam).
        num_samples: of `policy_step`.
        fix_threshold: decisions with this lead are settled (DSNAS); 1: none is.
        normalize: whether mixtures normalise what they add up; see `DiffMutableModule`.
    """

    arch: Literal["gradient", "unrolled", "joint", "policy"]
    relaxation: Relaxation
    weights: Relaxation | None
    warmup: float = 0.0
    arch_lr: float = 0.02
    num_samples: int = 4
    fix_threshold: float = 1.0
    normalize: bool = False


METHODS = {
    "samples": Method("policy", OneHot(), None, warmup=0.6, arch_lr=0.1),
    "darts": Method("gradient", Softmax(), Softmax(), arch_lr=0.05, normalize=True),
    "darts-second-order": Method("unrolled", Softmax(), Softmax(), arch_lr=0.05, normalize=True),
    "darts-single-level": Method("joint", Softmax(), Softmax(), arch_lr=0.05, normalize=True),
    "darts-plain": Method("gradient", Softmax(), Softmax()),
    "gdas": Method("gradient", Gumbel(single_path=True), Gumbel(single_path=True)),
    "dsnas": Method("joint", OneHot(), OneHot(), fix_threshold=0.9),
    "proxyless": Method("gradient", TwoPaths(), OneHot()),
}
"""The published methods, and `"samples"`, which is the one to begin with; see docs/differentiable-search.md."""


class Data(Protocol):
    """What the search needs of data for classification: tensors of inputs and labels by split."""

    def __getitem__(self, split: str) -> Any:
        """A `TensorDataset` of `"train"` or `"val"`."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        architecture: the most probable one.
        path_steps: what was spent.
        readings: the meter's, ten over the search.
        stopped: whether the meter stopped it before its budget was spent.
    """

    architecture: Architecture
    path_steps: int
    readings: list[Reading]
    stopped: bool


def search_by_gradient(
    net: nn.Module,
    data: Data,
    *,
    method: str | Method = "samples",
    path_steps: int = 3000,
    batch_size: int = 64,
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    seed: int = 0,
    max_skips: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Found:
    """Train the supernet and learn its architecture. `net` is trained in place, and computes the winner afterwards.

    Weights are trained on `data["train"]` (SGD, Nesterov momentum 0.9, cosine), the architecture on `data["val"]`, except by
    `"joint"` methods, which have one loss. Batches are drawn with replacement, as a function of seed and step.

    Args:
        net: a supernet of blocks such as `DiffMutableOP`.
        method: one of `METHODS`, or your own.
        max_skips: stop when more decisions than this prefer an operation without weights.
        progress: called with a line of text now and then.

    Errors:
        ConfigError: an unknown method.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise ConfigError(f"no method {method!r}; {nearest(method, METHODS)}")
        method = METHODS[method]
    mutator = Mutator(net)
    mutator.prepare_arch_params(seed=seed, relaxation=method.relaxation)
    for members in mutator.arch.mutables.values():
        for mutable in members:
            mutable.normalize = method.normalize
    loop = _Loop(net, mutator, data, method, path_steps, batch_size, lr, weight_decay, seed)
    meter = CollapseMeter(mutator, max_skips=max_skips)
    readings: list[Reading] = []
    training = net.training
    net.train()
    while loop.spent < path_steps:
        loop.iterate()
        if loop.spent * 10 >= path_steps * (len(readings) + 1) and loop.is_learning:
            readings.append(reading := meter.read())
            if progress is not None:
                progress(f"{loop.spent} of {path_steps} path-steps, {_described(reading)}")
            if reading.should_stop:
                break
    net.train(training)
    architecture = mutator.argmax()
    mutator.set_choices(architecture)
    return Found(architecture, loop.spent, readings, loop.spent < path_steps)


def train_alone(
    net: nn.Module,
    architecture: Architecture,
    data: Data,
    *,
    steps: int,
    batch_size: int = 64,
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    seed: int = 0,
) -> tuple[nn.Module, float]:
    """The subnet of an untrained `net`, trained alone, and its accuracy on the validation data."""
    model = export(net, architecture).train()
    optimizer, schedule = _sgd(model, lr, weight_decay, steps)
    for step in range(steps):
        inputs, labels = _batch(data, "train", seed, step, batch_size)
        torch.autograd.backward(F.cross_entropy(model(inputs), labels))
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    inputs, labels = data["val"].tensors
    with evaluating(model), torch.inference_mode():
        return model, float((model(inputs).argmax(dim=1) == labels).float().mean())


def differentiable(
    build: Callable[[], nn.Module],
    data: Data,
    *,
    method: str | Method = "samples",
    path_steps: int = 3000,
    retrain_steps: int = 300,
    num_random: int = 3,
    seed: int = 0,
    report: Callable[[str], None] = print,
    **options: Any,
) -> tuple[Found, nn.Module, dict[str, float]]:
    """Search, then train the winner alone and random architectures equally long beside it; what they got is reported.

    Args:
        build: makes the supernet, with the same weights each time.
        retrain_steps: of the winner and of each random architecture.
        report: called with each line of text.
        options: for `search_by_gradient`.

    Returns:
        What was found, the trained winner as a plain model, and the validation accuracy by role.
    """
    found = search_by_gradient(
        build(), data, method=method, path_steps=path_steps, seed=seed, progress=report, **options
    )
    winner, accuracy = train_alone(build(), found.architecture, data, steps=retrain_steps, seed=seed)
    accuracies = {"winner": accuracy}
    space = Mutator(build()).space
    for number in range(num_random):
        architecture = space.sample(random_at(seed, "random baseline", number))
        accuracies[f"random {number}"] = train_alone(build(), architecture, data, steps=retrain_steps, seed=seed)[1]
    for role, value in accuracies.items():
        report(f"{role:<10} {100 * value:5.1f}% of the validation data, trained alone for {retrain_steps} steps")
    return found, winner, accuracies


class _Loop:
    """The steps of one search, and what they cost."""

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
        self.net, self.mutator, self.data, self.method, self.seed = net, mutator, data, method, seed
        self.batch_size = batch_size
        self.spent = 0
        self._warm = int(path_steps * method.warmup)
        self._step = 0
        self._most = max(len(parameter) for parameter in mutator.arch_parameters())
        per_step = self._cost_of_weights
        left = (path_steps - self._warm) // (per_step + self._cost_of_architecture)
        self.optimizer, self._schedule = _sgd(net, lr, weight_decay, self._warm + max(1, left))
        self._arch = torch.optim.Adam(mutator.arch_parameters(), lr=method.arch_lr, betas=(0.5, 0.999))

    @property
    def is_learning(self) -> bool:
        """Whether the architecture is learned by now."""
        return self.spent > self._warm

    def iterate(self) -> None:
        """One step of the weights, and one of the architecture before it."""
        options: dict[str, Any] = {"seed": self.seed, "step": self._step}
        train = self._loss("train")
        if self.spent < self._warm:
            path_step(self.net, self.mutator, train, [single_path(self.mutator.space, self.seed, self._step)])
            self.spent += 1
            self._update(self.optimizer)
        elif self.method.arch == "joint":
            self._relax()
            joint_step(self.net, self.mutator, train, relaxation=self.method.relaxation, **options)
            self.spent += self._cost_of_weights
            self._update(self.optimizer, self._arch)
            if self.method.fix_threshold < 1:
                self.mutator.settle(self.method.fix_threshold)
        else:
            self._learn(options, train)
            self._update(self._arch)
            self._train(options, train)
            self._update(self.optimizer)
            self.spent += self._cost_of_architecture + self._cost_of_weights
        self._schedule.step()
        self._step += 1

    @property
    def _cost_of_weights(self) -> int:
        return 1 if self.method.weights is None else (self.method.weights.num_paths or self._most)

    @property
    def _cost_of_architecture(self) -> int:
        paths = self.method.relaxation.num_paths or self._most
        return {"gradient": paths, "unrolled": 4 * paths, "joint": 0, "policy": self.method.num_samples}[
            self.method.arch
        ]

    def _learn(self, options: dict[str, Any], train: Callable[[nn.Module], Tensor]) -> None:
        method, val = self.method, self._loss("val")
        if method.arch == "policy":
            policy_step(self.mutator, val, num_samples=method.num_samples, **options)
            return
        self._relax()
        if method.arch == "unrolled":
            unrolled_arch_step(self.mutator, train, val, self.optimizer, relaxation=method.relaxation, **options)
        else:
            arch_step(self.net, self.mutator, val, relaxation=method.relaxation, **options)

    def _train(self, options: dict[str, Any], train: Callable[[nn.Module], Tensor]) -> None:
        if self.method.weights is None:
            drawn = self.mutator.sample_probable(random_at(self.seed, "weights", self._step))
            path_step(self.net, self.mutator, train, [drawn])
        else:
            relaxed_step(self.net, self.mutator, train, relaxation=self.method.weights, **options)

    def _relax(self) -> None:
        if self.method.arch != "joint" or self._step == self._warm:
            self.mutator.relax()

    def _update(self, *optimizers: torch.optim.Optimizer) -> None:
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def _loss(self, split: str) -> Callable[[nn.Module], Tensor]:
        inputs, labels = _batch(self.data, split, self.seed, self._step, self.batch_size)
        return lambda model: F.cross_entropy(model(inputs), labels)


def _batch(data: Data, split: str, seed: int, step: int, size: int) -> tuple[Tensor, Tensor]:
    inputs, labels = data[split].tensors
    generator = torch.Generator().manual_seed(random_at(seed, split, step).getrandbits(63))
    chosen = torch.randint(len(labels), (size,), generator=generator)
    return inputs[chosen], labels[chosen]


def _sgd(net: nn.Module, lr: float, weight_decay: float, steps: int) -> tuple[torch.optim.SGD, Any]:
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def _described(reading: Reading) -> str:
    choices = ", ".join(f"{name} {choice}" for name, choice in list(reading.architecture.items())[:6])
    return f"entropy {reading.entropy:.2f}, skips {reading.skip_share:.0%}: {choices}"
