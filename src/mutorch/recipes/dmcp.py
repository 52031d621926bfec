"""Differentiable Markov channel pruning (DMCP, Guo et al. 2020, arXiv 2005.03354), from a config to a smaller plain model.

1. Train a supernet at its widest, its narrowest and random widths; after a while, learn in turn with which probability each
group of channels stays, so that the expected costs meet the budget. 2. Draw widths by these probabilities, and take those
within the budget that do best with the supernet's weights. 3. Export and finetune them, with the widest as the teacher.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mutorch.channels import searchable, widths
from mutorch.errors import ConfigError, nearest
from mutorch.pruning import Finetune, Shrunk
from mutorch.pruning.finetune import finetune_
from mutorch.registry import DATASETS
from mutorch.search.cost_loss import KINDS
from mutorch.subnet import compare
from mutorch.utils import ExampleInputs

from .building import build_model
from .channel_settings import check_model_and_data, read, share, whole
from .data import Data
from .dmcp_search import WidthSearch, WidthSearching
from .progress import Progress
from .prune import Pruned, accuracy, load_weights, loss_of_labels, shower, write_pruned
from .settings import Training, filled
from .winner import claim


@dataclass(frozen=True, slots=True)
class DMCPSettings:
    """A whole run of the recipe.

    Attributes:
        model, data: configs for `MODELS` and `DATASETS`.
        budget: see `mutorch.Budget`; at least one upper bound.
        weights: a file with weights to begin with; fresh ones unless given.
        supernet: the training of the supernet; each step costs three forwards and backwards, and four thirds for the probabilities.
        search: how the probabilities are learned.
        finetune: see `mutorch.pruning.Finetune`; the widest subnet is the teacher.
        only, freeze, tie: see `mutorch.searchable`.
        divisor: widths are multiples of it.
        seed: decides everything that is random.
        threads: how many CPU threads torch computes with; its own choice unless given.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    budget: Mapping[str, Any]
    weights: str | None = None
    supernet: Training = field(default_factory=lambda: Training(steps=300))
    search: WidthSearching = field(default_factory=WidthSearching)
    finetune: Finetune = field(default_factory=Finetune)
    only: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    tie: tuple[tuple[str, ...], ...] = ()
    divisor: int = 8
    seed: int = 0
    threads: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "DMCPSettings":
        """The settings that a config file describes; the config is not changed.

        Errors:
            ConfigError: a missing or unknown key, or a value that is out of range.

        Example:
            >>> settings = DMCPSettings.from_config({"model": {"type": "MyNet"}, "data": {"type": "ClutteredDigits"},
            ...     "budget": {"macs": "50%"}, "search": {"candidates": 5}})
            >>> settings.supernet.steps, settings.search.candidates
            (300, 5)
        """
        known = check_model_and_data(config, cls)
        if not isinstance(known.get("budget"), Mapping):
            raise ConfigError(f"a config needs 'budget', a dict; this one has {known.get('budget')!r}")
        parts = {"supernet": Training(steps=300), "search": WidthSearching(), "finetune": Finetune()}
        for key, base in parts.items():
            if key in known:
                known[key] = filled(base, known[key], key)
        known["tie"] = tuple(tuple(paths) for paths in known.get("tie") or ())
        _check(known.get("search", WidthSearching()))
        return cls(**read(known, globs=("only", "freeze"), optional=("threads", "weights")))


def _check(search: WidthSearching) -> None:
    for name in ("every", "candidates", "calibration"):
        whole(f"search: {name}", getattr(search, name))
    for name in ("min_share", "step"):
        share(f"search: {name}", getattr(search, name))
    for name, low, high in (
        ("start", 0, 1),
        ("cost_weight", 0, 1e9),
        ("loss_weight", 0, 1e9),
        ("lr", 0, 1e9),
        ("max_norm", 0, 1e9),
    ):
        value = getattr(search, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < high:
            limits = "at least 0 and below 1" if high == 1 else "at least 0"
            raise ConfigError(f"search: {name} must be a number {limits}, got {value!r}")
    if (
        isinstance(search.cost_growth, bool)
        or not isinstance(search.cost_growth, int | float)
        or search.cost_growth < 1
    ):
        raise ConfigError(f"search: cost_growth must be a number of at least 1, got {search.cost_growth!r}")
    if search.cost_loss not in KINDS:
        raise ConfigError(f"search: no cost_loss {search.cost_loss!r}; {nearest(search.cost_loss, KINDS)}")


def dmcp(settings: DMCPSettings, output: str | os.PathLike[str], *, progress: Progress | None = None) -> Pruned:
    """Run the whole recipe; see the top of this file.

    Args:
        output: a folder for the supernet, the smaller model and the table. One folder is one run.

    Errors:
        InfeasibleBudgetError: before anything is trained, or where the probabilities do not reach the budget.
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
    net = searchable_by_groups(
        model, data.example_inputs, settings.search, divisor=settings.divisor, only=settings.only,
        freeze=settings.freeze, tie=settings.tie,
    )  # fmt: skip
    search = WidthSearch(net, data, settings.budget, settings.supernet, settings.search, seed=settings.seed)
    depends = ("model", "data", "budget", "weights", "supernet", "search", "only", "freeze", "tie", "divisor", "seed")
    claim(folder, {name: value for name, value in asdict(settings).items() if name in depends})
    search.train(checkpoint=folder / "supernet.ckpt", progress=show)
    architecture, _ = search.best(show)
    widest = search.subnet(search.mutator.space.max)
    small = search.subnet(architecture)
    scores = {"original": accuracy(widest, data, "val"), "recalibrated": accuracy(small, data, "val")}
    batches = data.loader("train", settings.supernet.batch_size)
    on_step = shower(show, "finetuning")
    steps = finetune_(small, widest, batches, loss_of_labels, settings.finetune, seed=settings.seed, on_step=on_step)
    if steps:
        scores["finetuned"] = accuracy(small, data, "val")
    taught = 1 + (settings.finetune.distill > 0) / 3
    shrunk = Shrunk(
        model=small,
        comparison=compare(widest, small, data.example_inputs),
        budget=str(search.budget),
        architecture=architecture,
        net=net,
        scores=scores,
        steps=steps,
        passes=search.passes + taught * steps,
    )
    return write_pruned(folder, data, shrunk, before=accuracy(widest, data, "test"))


def searchable_by_groups(
    model: nn.Module, example_inputs: ExampleInputs, options: WidthSearching, *, divisor: int = 1, **selection: Any
) -> nn.Module:
    """A searchable copy whose units have the widths of DMCP: a share that always stays, then group after group.

    Args:
        divisor: widths are rounded up to multiples of it.
        selection: `only`, `freeze` and `tie` of `searchable`.

    Example:
        >>> net = searchable_by_groups(nn.Sequential(nn.Linear(2, 40), nn.Linear(40, 2)), torch.zeros(1, 2),
        ...     WidthSearching(min_share=0.5, step=0.1))
        >>> from mutorch import Mutator
        >>> Mutator(net).space["0"].choices
        (20, 24, 28, 32, 36, 40)
    """
    count = int((1 - options.min_share) / options.step + 1e-4)
    ratios = [1 - options.step * left for left in range(count, -1, -1)]
    return searchable(model, example_inputs, rules=[widths(ratios=ratios, divisor=divisor)], **selection)
