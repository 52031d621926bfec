"""Dynamic-coded filter fusion (DCFF, Lin et al. 2021, arXiv 2107.06916), from a config to a smaller plain model.

1. Choose how many filters each layer keeps: shares, or a budget. 2. Train once, from fresh weights or given ones: what
computes are mixtures of all filters, which become single filters as the temperature falls. 3. Export the fused net,
recalibrate it, and finetune it if the config says so.
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mutorch.errors import ConfigError, nearest
from mutorch.mutators import DCFFChannelMutator
from mutorch.pruning import Finetune, Prices, Shrunk, uniform
from mutorch.pruning.finetune import finetune_
from mutorch.registry import DATASETS
from mutorch.space import Architecture
from mutorch.subnet import compare, export
from mutorch.training import FusedStep, FusionTemperature, fit, recalibrate_
from mutorch.utils import ExampleInputs

from .building import build_model
from .channel_settings import check_model_and_data, read, share
from .data import Data
from .progress import Progress
from .prune import Pruned, accuracy, load_weights, loss_of_labels, shower, write_pruned
from .settings import Training, filled
from .winner import claim


@dataclass(frozen=True, slots=True)
class DCFFSettings:
    """A whole run of the recipe.

    Attributes:
        model, data: configs for `MODELS` and `DATASETS`.
        budget: see `mutorch.Budget`; all layers keep one share of their filters. Or say `ratios`.
        ratios: glob over units, which are called by the module that makes their channels, to the share that they keep; the
            last one that names a unit counts, and what none names stays whole.
        weights: a file with weights to begin with; fresh ones unless given, as in the paper.
        train: the training.
        every: after how many steps likenesses of filters are computed anew; each epoch unless given, as in the paper.
        finetune: what follows with the exported net; nothing unless given, as in the paper.
        freeze: globs over units that stay whole.
        divisor, min_ratio: with `budget`, widths are multiples of it, and at least this share.
        seed: decides everything that is random.
        threads: how many CPU threads torch computes with; its own choice unless given.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    budget: Mapping[str, Any] | None = None
    ratios: Mapping[str, float] | None = None
    weights: str | None = None
    train: Training = field(default_factory=lambda: Training(steps=500))
    every: int | None = None
    finetune: Finetune = field(default_factory=lambda: Finetune(steps=0, distill=0.0))
    freeze: tuple[str, ...] = ()
    divisor: int = 8
    min_ratio: float = 0.1
    seed: int = 0
    threads: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "DCFFSettings":
        """The settings that a config file describes; the config is not changed.

        Errors:
            ConfigError: a missing or unknown key, a value out of range, or not exactly one of `budget` and `ratios`.

        Example:
            >>> settings = DCFFSettings.from_config({"model": {"type": "MyNet"}, "data": {"type": "ClutteredDigits"},
            ...     "ratios": {"*": 0.5}})
            >>> settings.train.steps, settings.finetune.steps
            (500, 0)
        """
        known = check_model_and_data(config, cls)
        for key, base in (("train", Training(steps=500)), ("finetune", Finetune(steps=0, distill=0.0))):
            if key in known:
                known[key] = filled(base, known[key], key)
        if (known.get("budget") is None) == (known.get("ratios") is None):
            raise ConfigError("dcff needs either 'budget' or 'ratios', which say how many filters each layer keeps")
        for key in ("budget", "ratios"):
            if known.get(key) is not None and not isinstance(known[key], Mapping):
                raise ConfigError(f"{key!r} must be a dict, got {known[key]!r}")
        for pattern, ratio in (known.get("ratios") or {}).items():
            share(f"ratios: {pattern!r}", ratio)
        if known.get("finetune", Finetune(distill=0.0)).distill:
            raise ConfigError("finetune: distill must be 0, since dcff trains no whole model that could be the teacher")
        return cls(**read(known, globs=("freeze",), optional=("threads", "weights", "budget", "ratios", "every")))


def dcff(settings: DCFFSettings, output: str | os.PathLike[str], *, progress: Progress | None = None) -> Pruned:
    """Run the whole recipe; see the top of this file.

    Args:
        output: a folder for the trained weights, the smaller model and the table. One folder is one run.

    Errors:
        InfeasibleBudgetError: before anything is trained.
        ConfigError: a pattern that names no unit.
        LoadError: weights that do not fit.
        ResumeError: the folder belongs to a run with other settings.
    """
    folder, show = Path(output), progress or (lambda *_: None)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    data: Data = DATASETS.build(dict(settings.data))
    model = build_model(settings.model, settings.seed)
    if settings.weights is not None:
        load_weights(model, Path(settings.weights))
    original = copy.deepcopy(model)
    before = None if settings.weights is None else accuracy(original, data, "test")
    divisor = settings.divisor if settings.ratios is None else 1
    mutator = fusible(model, data.example_inputs, divisor=divisor)
    architecture, bounds = _widths(settings, mutator, data)
    claim(folder, {name: value for name, value in asdict(settings).items() if name not in ("finetune", "threads")})
    small = fuse(
        model, mutator, architecture, data, settings.train,
        every=settings.every, seed=settings.seed, checkpoint=folder / "fused.ckpt", progress=show,
    )  # fmt: skip
    scores = {"fused": accuracy(small, data, "val")}
    batches = data.loader("train", settings.train.batch_size)
    recalibrate_(small, batches, num_batches=64)
    scores["recalibrated"] = accuracy(small, data, "val")
    on_step = shower(show, "finetuning")
    steps = finetune_(small, small, batches, loss_of_labels, settings.finetune, seed=settings.seed, on_step=on_step)
    if steps:
        scores["finetuned"] = accuracy(small, data, "val")
    small.train(False)
    shrunk = Shrunk(
        model=small,
        comparison=compare(original, small, data.example_inputs),
        budget=bounds,
        architecture=architecture,
        net=model,
        scores=scores,
        steps=steps,
        passes=float(settings.train.steps + steps),
    )
    return write_pruned(folder, data, shrunk, before=before)


def _widths(settings: DCFFSettings, mutator: DCFFChannelMutator, data: Data) -> tuple[Architecture, str]:
    """How many channels each unit keeps, and what bounds them."""
    paths = {unit.name: unit.name.rpartition("_(")[0] for unit in mutator.mutable_units}
    for pattern in (*settings.freeze, *(settings.ratios or {})):
        if not any(fnmatchcase(path, pattern) for path in paths.values()):
            raise ConfigError(f"{pattern!r} names no unit of the model; {nearest(pattern, paths.values())}")
    frozen = {name for name, path in paths.items() if any(fnmatchcase(path, pattern) for pattern in settings.freeze)}
    if settings.budget is not None:
        prices = Prices(mutator, data.example_inputs, min_ratio=settings.min_ratio)
        for name in frozen:
            prices.widths.pop(name)
        budget = prices.budget(settings.budget)
        return {**mutator.space.max, **uniform(prices, budget, {})}, str(budget)
    architecture = dict(mutator.space.max)
    for name, path in paths.items():
        ratios = [ratio for pattern, ratio in (settings.ratios or {}).items() if fnmatchcase(path, pattern)]
        if ratios and name not in frozen:
            architecture[name] = max(1, int(mutator.name2unit[name].num_channels * ratios[-1] + 1e-9))
    return architecture, ", ".join(f"{pattern}: {ratio:g}" for pattern, ratio in (settings.ratios or {}).items())


def fusible(model: nn.Module, example_inputs: ExampleInputs, *, divisor: int = 1) -> DCFFChannelMutator:
    """The mutator of a model whose convolutions can be fused from now on, in place. Weights stay.

    Args:
        divisor: widths are multiples of it.
    """
    units = {"type": "DCFFChannelUnit", "default_args": {"choice_mode": "number", "divisor": divisor, "min_ratio": 0.0}}
    mutator = DCFFChannelMutator(units, {"type": "ChannelAnalyzer", "demo_input": example_inputs})
    mutator.prepare_from_supernet(model)
    return mutator


def fuse(
    model: nn.Module,
    mutator: DCFFChannelMutator,
    architecture: Architecture,
    data: Data,
    training: Training,
    *,
    every: int | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Train with fused filters, and export the fused net: a new plain model. `model` is trained in place.

    Args:
        mutator: of the model; see `fusible`.
        architecture: how many channels each unit keeps.
        every: after how many steps likenesses are computed anew; each epoch unless given.
        checkpoint: see `fit`.
    """
    batches = data.loader("train", training.batch_size)
    epoch = every or len(batches)
    stages = max(1.0, training.steps / epoch)
    step = FusedStep(dict(architecture), training.steps, epoch, FusionTemperature(stages=stages))
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.momentum > 0,
    )
    stage = "training fused filters"
    fit(
        model,
        batches,
        loss_of_labels,
        optimizer,
        steps=training.steps,
        mutator=mutator,
        step=step,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps),
        seed=seed,
        checkpoint=checkpoint,
        checkpoint_every=epoch * max(1, 500 // epoch),  # where likenesses are computed anew, so that nothing is lost
        on_step=None if progress is None else shower(progress, stage),
    )
    if progress is not None:
        progress(stage, training.steps, training.steps, "")
    step.fuse(mutator, training.steps)
    return export(model, architecture, mutator=mutator)
