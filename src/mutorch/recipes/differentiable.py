"""Search by gradient in Python, with the comparison that it has to stand: random architectures trained equally long."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mutorch.mutators import Mutator
from mutorch.space import Architecture, random_at
from mutorch.subnet import export
from mutorch.utils import evaluating

from .data import Batches, Data
from .gradient_loop import sgd
from .gradient_search import Found, search_by_gradient
from .methods import Method


def differentiable(
    build: Callable[[], nn.Module],
    data: Data,
    *,
    method: str | Method | Mapping[str, Any] = "samples",
    path_steps: int = 3000,
    retrain_steps: int = 300,
    num_random: int = 3,
    seed: int = 0,
    report: Callable[[str], None] = print,
    **options: Any,
) -> tuple[Found, nn.Module, dict[str, float]]:
    """Search, then train the winner alone and random architectures equally long beside it; what they got is reported.

    `run_differentiable` does the same from a config file, with a folder that it goes on from.

    Args:
        build: makes the supernet, with the same weights each time.
        retrain_steps: of the winner and of each random architecture.
        report: called with each line of text.
        options: for `search_by_gradient`.

    Returns:
        What was found, the trained winner as a plain model, and the validation accuracy by role.
    """

    def show(_: str, done: int, total: int, note: str) -> None:
        report(f"{done} of {total} path-steps, {note}")

    found = search_by_gradient(build(), data, method=method, path_steps=path_steps, seed=seed, progress=show, **options)
    winner, accuracy = train_alone(build(), found.architecture, data, steps=retrain_steps, seed=seed)
    accuracies = {"winner": accuracy}
    space = Mutator(build()).space
    for number in range(num_random):
        architecture = space.sample(random_at(seed, "random baseline", number))
        accuracies[f"random {number}"] = train_alone(build(), architecture, data, steps=retrain_steps, seed=seed)[1]
    for role, value in accuracies.items():
        report(f"{role:<10} {100 * value:5.1f}% of the validation data, trained alone for {retrain_steps} steps")
    return found, winner, accuracies


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
    optimizer, schedule = sgd(model, lr, weight_decay, steps)
    batches = Batches(data, "train", batch_size, seed)
    for step in range(steps):
        inputs, labels = batches.at(step)
        torch.autograd.backward(F.cross_entropy(model(inputs), labels))
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    correct = count = 0
    with evaluating(model), torch.inference_mode():
        for inputs, labels in data.loader("val", 512):
            correct += int((model(inputs).argmax(dim=1) == labels).sum())
            count += len(labels)
    return model, correct / count
