"""Prune a trained model to a budget, from a config to a plain model and a table.

1. Load the model's weights, or train it. 2. Shrink it: rank channels, cut to the budget at once or little by little,
recalibrate, finetune with the original as the teacher. 3. Write the smaller model and what was measured.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from mutorch.channels import searchable, widths
from mutorch.errors import LoadError
from mutorch.importance import Importance
from mutorch.mutators import Mutator
from mutorch.pruning import Prices, Shrunk, by_ratio, shrink
from mutorch.pruning.shrink import SHARES
from mutorch.registry import DATASETS
from mutorch.subnet import save
from mutorch.training import fit
from mutorch.utils import evaluating

from .building import build_model
from .data import Data
from .progress import Progress
from .prune_settings import PruneSettings, ranking_of
from .winner import claim, write_json


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a run made; `results.json` in its folder holds the numbers.

    Attributes:
        shrunk: see `mutorch.pruning.Shrunk`; its scores are validation accuracies.
        test_accuracy: before and after, on data that nothing was chosen with; before is `None` where there was no training
            of the original.
        subnet_file: the smaller model, for `mutorch.load(file, build_the_original)`.
    """

    shrunk: Shrunk
    test_accuracy: tuple[float | None, float]
    subnet_file: Path
    report_file: Path


def prune(settings: PruneSettings, output: str | os.PathLike[str], *, progress: Progress | None = None) -> Pruned:
    """Run the whole recipe; see the top of this file.

    Args:
        output: a folder for the trained original, the smaller model and the table. One folder is one original.

    Errors:
        InfeasibleBudgetError: before anything is trained.
        LoadError: weights that do not fit.
        ResumeError: the folder belongs to a run with other settings.
    """
    folder = Path(output)
    show: Progress = progress or (lambda *_: None)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    data: Data = DATASETS.build(dict(settings.data))
    model = build_model(settings.model, settings.seed)
    _check_budget(settings, model, data)
    _original(settings, model, data, folder, show)
    batches = data.loader("train", settings.batch_size)
    shrunk = shrink(
        model,
        settings.budget,
        batches,
        loss_of_labels,
        example_inputs=data.example_inputs,
        importance=_importance(settings, batches),
        allocation=settings.allocation,  # type: ignore[arg-type]
        gradual=settings.gradual,
        only=settings.only,
        freeze=settings.freeze,
        tie=settings.tie,
        divisor=settings.divisor,
        min_ratio=settings.min_ratio,
        finetune=settings.finetune,
        evaluate=lambda scored: accuracy(scored, data, "val"),
        seed=settings.seed,
        progress=show,
    )
    return write_pruned(folder, data, shrunk, before=accuracy(model, data, "test"))


def _check_budget(settings: PruneSettings, model: nn.Module, data: Data) -> None:
    """A budget that cannot be met is an error before hours of training."""
    net = searchable(
        model,
        data.example_inputs,
        rules=[widths(ratios=SHARES, divisor=settings.divisor)],
        only=settings.only,
        freeze=settings.freeze,
        tie=settings.tie,
    )
    prices = Prices(Mutator(net), data.example_inputs, min_ratio=settings.min_ratio)
    bounds = prices.budget(settings.budget)
    if isinstance(settings.allocation, Mapping):
        by_ratio(settings.allocation)(prices, bounds, {})


def _original(settings: PruneSettings, model: nn.Module, data: Data, folder: Path, show: Progress) -> None:
    """The weights of the original: from the file, from an earlier call, or trained now."""
    if settings.weights is not None:
        load_weights(model, Path(settings.weights))
        return
    names = ("model", "data", "train", "seed")
    claim(folder, {name: asdict(settings)[name] for name in names})
    training, stage = settings.train, "training the original"
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.momentum > 0,
    )
    fit(
        model,
        data.loader("train", training.batch_size),
        loss_of_labels,
        optimizer,
        steps=training.steps,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps),
        seed=settings.seed,
        checkpoint=folder / "original.ckpt",
        on_step=shower(show, stage),
    )
    show(stage, training.steps, training.steps, "")


def load_weights(model: nn.Module, path: Path) -> None:
    """Read weights from a file of `mutorch.save`, or of `torch.save(model.state_dict())`, into a model.

    Errors:
        LoadError: no such file, or weights that do not fit.
    """
    if not path.exists():
        raise LoadError(f"no file {path} with the weights of the model")
    try:
        state: dict[str, Any] = (
            load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        )
        model.load_state_dict(state.get("tensors", state))
    except Exception as error:
        raise LoadError(f"the weights in {path} do not fit {type(model).__name__}: {error}") from error


def _importance(settings: PruneSettings, batches: Any) -> Importance | None:
    return None if settings.importance is None else ranking_of(settings.importance, batches, loss_of_labels)


def loss_of_labels(model: nn.Module, batch: Any) -> Tensor:
    """The cross entropy of a batch of inputs and labels."""
    return F.cross_entropy(model(batch[0]), batch[1])


def shower(show: Progress, stage: str) -> Callable[[int, int, Tensor], None]:
    """An `on_step` for `fit` that shows a stage."""

    def on_step(done: int, total: int, loss: Tensor) -> None:
        if done % 20 == 0:
            show(stage, done, total, f"loss {float(loss):.3f}")

    return on_step


def accuracy(model: nn.Module, data: Data, split: str) -> float:
    """The share of a split that the model labels right."""
    correct = count = 0
    with evaluating(model), torch.inference_mode():
        for inputs, labels in data.loader(split, 512):
            correct += int((model(inputs).argmax(dim=1) == labels).sum())
            count += len(labels)
    return correct / count


def write_pruned(folder: Path, data: Data, shrunk: Shrunk, *, before: float | None) -> Pruned:
    """What every recipe that ends with a smaller model writes: the model, `results.json` and a table.

    Args:
        before: the original's accuracy on test data; `None` where no original was trained.
    """
    accuracies = before, accuracy(shrunk.model, data, "test")
    metrics = {"test_accuracy": accuracies[1], **{f"val_{name}": score for name, score in shrunk.scores.items()}}
    file = save(shrunk.model, folder / "subnet.safetensors", metrics=metrics)
    return Pruned(shrunk, accuracies, file, _write(folder, shrunk, accuracies))


def _write(folder: Path, shrunk: Shrunk, accuracies: tuple[float | None, float]) -> Path:
    """The numbers as JSON, and as a table for people."""
    before, after = shrunk.comparison.first, shrunk.comparison.second
    results = {
        "budget": shrunk.budget,
        "architecture": shrunk.architecture,
        "before": {**before, "test_accuracy": accuracies[0]},
        "after": {**after, "test_accuracy": accuracies[1]},
        "val_accuracy": dict(shrunk.scores),
        "finetuning_steps": shrunk.steps,
        "passes": shrunk.passes,
    }
    write_json(folder / "results.json", results)
    rows = [(metric, before[metric], after[metric]) for metric in before]
    lines = ["| | before | after | ratio |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {a:,.6g} | {b:,.6g} | {b / a:.2f} |" for name, a, b in rows]
    first, second = ("" if one is None else f"{one:.2%}" for one in accuracies)
    lines.append(f"| test accuracy | {first} | {second} | |")
    stages = ", ".join(f"{stage} {score:.2%}" for stage, score in shrunk.scores.items())
    kept = [f"| {unit} | {count} |" for unit, count in shrunk.architecture.items()]
    text = [f"# Pruned to {shrunk.budget}", "", *lines, "", f"Validation accuracy: {stages}.", ""]
    path = folder / "report.md"
    path.write_text("\n".join([*text, "| unit | channels |", "|---|---:|", *kept]) + "\n", encoding="utf-8")
    return path
