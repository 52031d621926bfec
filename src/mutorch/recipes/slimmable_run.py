"""The stages of the recipes of the slimmable family: one network of many sizes, trained, searched and taken apart."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mutorch.channels import searchable
from mutorch.cost import Budget, CostTable, count
from mutorch.mutables.depth import MutableDepth
from mutorch.mutators import Mutator, find_places
from mutorch.pruning import Prices, uniform
from mutorch.pruning.finetune import finetune_
from mutorch.registry import DATASETS
from mutorch.search import Feasible, Trial, greedy_slim, search
from mutorch.space import Architecture
from mutorch.subnet import export, save
from mutorch.training import ProgressiveShrinking, fit, protect, sandwich_step, slimmable_step
from mutorch.utils import evaluating

from .building import build_model
from .data import Batches, Data
from .progress import Progress
from .prune import accuracy, load_weights, loss_of_labels, shower
from .slimmable_net import at_share, shares_norms, slimmable_net, uniform_paths
from .slimmable_settings import SlimmableSettings
from .winner import claim


@dataclass(frozen=True, slots=True)
class SlimRow:
    """One subnet that was taken home.

    Attributes:
        budget: what it was chosen for; `"largest"` for the whole network.
        macs, params: of one sample.
        val_accuracy, test_accuracy: shares between 0 and 1, with the weights that all sizes share.
        finetuned: the same two after finetuning; `None` where there was none.
        file: its weights, for `mutorch.load(file, build_the_model)`.
    """

    budget: str
    architecture: Architecture
    macs: int
    params: int
    val_accuracy: float
    test_accuracy: float
    finetuned: tuple[float, float] | None
    file: str


class SlimRun:
    """The stages of the recipes, and the folder that they share; for those who want one stage alone.

    Args:
        settings, output, progress: as for `slimmable`.

    Attributes:
        data: the data set.
        mutator: of the network, untrained at first.
        fixed: the few architectures of a slimmable network, the largest first; empty otherwise.
    """

    def __init__(
        self, settings: SlimmableSettings, output: str | os.PathLike[str], progress: Progress | None = None
    ) -> None:
        self.settings, self.folder = settings, Path(output)
        self.show: Progress = progress or (lambda *_: None)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.data: Data = DATASETS.build(dict(settings.data))
        self.fixed: list[Architecture] = []
        self.mutator = self._made(self._model())
        self._choose = self._chooser()

    # ---- the network -------------------------------------------------------------------------------------------------

    def _model(self) -> nn.Module:
        model = build_model(self.settings.model, self.settings.seed)
        if self.settings.weights is not None:
            load_weights(model, Path(self.settings.weights))
        return model

    def _made(self, model: nn.Module) -> Mutator:
        settings = self.settings
        selection: dict[str, Any] = {"only": settings.only, "freeze": settings.freeze, "tie": settings.tie}
        if settings.recipe == "slimmable":
            mutator, self.fixed = slimmable_net(
                model, self.data.example_inputs, ratios=settings.widths, budgets=settings.budgets,
                divisor=settings.divisor, min_ratio=settings.min_ratio, **selection,
            )  # fmt: skip
            return mutator
        is_whole = not settings.widths and not settings.rules and not any(selection.values())
        if is_whole and find_places(model):
            return Mutator(model)
        return Mutator(searchable(model, self.data.example_inputs, rules=settings.width_rules(), **selection))

    @property
    def largest(self) -> Architecture:
        """The whole network."""
        return self.fixed[0] if self.fixed else self.mutator.space.max

    # ---- training ----------------------------------------------------------------------------------------------------

    @property
    def passes(self) -> int:
        """How many forwards and backwards of one architecture on one batch the training takes."""
        settings = self.settings
        if settings.recipe != "ofa":
            return settings.supernet.steps * (len(self.fixed) or 2 + settings.num_random)
        shrinking = self._shrinking()
        passes = begins = 0
        for phase in shrinking.phases:
            passes += phase.steps * len(shrinking.architectures(settings.seed, begins))
            begins += phase.steps
        return passes

    def train(self) -> None:
        """Train the network, or read what was trained.

        Errors:
            ResumeError: the output folder belongs to a run with other settings.
        """
        settings, training = self.settings, self.settings.supernet
        claim(self.folder, {name: value for name, value in asdict(settings).items() if name in self._lasting()})
        net = self.mutator.model
        optimizer = torch.optim.SGD(
            net.parameters(),
            lr=training.lr,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            nesterov=training.momentum > 0,
        )
        protection = protect(optimizer, net) if settings.protect else None
        stage = "training all sizes"
        fit(
            net,
            self.data.loader("train", training.batch_size),
            loss_of_labels,
            optimizer,
            steps=training.steps,
            mutator=self.mutator,
            step=self._step(),
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps),
            seed=settings.seed,
            checkpoint=self.folder / "supernet.ckpt",
            on_step=shower(self.show, stage),
        )
        self.show(stage, training.steps, training.steps, "")
        if protection is not None:
            protection.remove()

    def _lasting(self) -> list[str]:
        """What the trained weights depend on; the rest may change from call to call."""
        later = {"search", "finetune", "threads"} | (set() if self.fixed else {"budgets"})
        return [name for name in SlimmableSettings.__dataclass_fields__ if name not in later]

    def _step(self) -> Callable[..., Tensor]:
        settings = self.settings
        options: dict[str, Any] = {"distill": settings.is_distilled, "loss_weight": settings.label_weight}
        if settings.recipe == "ofa":
            return self._shrinking()
        if settings.recipe in ("autoslim", "bignas"):
            return partial(sandwich_step, num_random=settings.num_random, **options)

        def step(net: nn.Module, mutator: Mutator, loss_fn: Any, *, seed: int, step: int, backward: Any) -> Tensor:
            paths = self.fixed or uniform_paths(mutator.space, seed, step, settings.num_random)
            return slimmable_step(net, mutator, loss_fn, paths, backward=backward, **options)

        return step

    def _shrinking(self) -> ProgressiveShrinking:
        kinds: dict[str, list[str]] = {"values": [], "depths": [], "widths": []}
        for name, members in self.mutator.search_groups.items():
            if members[0].mutable_prefix == "channel" or any(part in name for part in ("width", "expand", "channels")):
                kinds["widths"].append(name)
            else:
                kinds["depths" if isinstance(members[0], MutableDepth) or "depth" in name else "values"].append(name)
        return ProgressiveShrinking(
            self.mutator.space,
            self.settings.phases_of(list(kinds.values())),
            distill=self.settings.is_distilled,
            loss_weight=self.settings.label_weight,
        )

    # ---- choosing ----------------------------------------------------------------------------------------------------

    def choose(self) -> list[tuple[str, Architecture]]:
        """An architecture for each budget, with the budget as it was read."""
        return self._choose()

    def _chooser(self) -> Callable[[], list[tuple[str, Architecture]]]:
        """How architectures are chosen; what cannot be met is an error now, before hours of training."""
        settings, inputs = self.settings, self.data.example_inputs
        if settings.recipe == "ofa":
            _ = self._shrinking()
        if settings.recipe == "slimmable":
            return lambda: self._fixed_for(Prices(self.mutator, inputs))
        if settings.recipe == "us-net":
            prices = Prices(self.mutator, inputs)
            bounds = [prices.budget(budget) for budget in settings.budgets]
            default = self.mutator.space.max
            return lambda: [(str(one), {**default, **uniform(prices, one, {})}) for one in bounds]
        table = CostTable.from_model(self.mutator, inputs)
        budgets = [Budget.parse(budget, table) for budget in settings.budgets]
        for budget in budgets:
            Feasible(self.mutator.space, table, budget)
        if settings.recipe == "autoslim":
            return lambda: self._slimmed(table, budgets)
        return lambda: [(str(budget), self._searched(table, budget)) for budget in budgets]

    def _fixed_for(self, prices: Prices) -> list[tuple[str, Architecture]]:
        """Of a slimmable network: its largest architecture within each budget, or the one of each width below the whole."""
        space = self.mutator.space
        if self.settings.widths:
            ratios = sorted((ratio for ratio in self.settings.widths if ratio < 1), reverse=True)
            return [(f"width {ratio:g}", at_share(space, ratio)) for ratio in ratios]
        bounds = [prices.budget(budget) for budget in self.settings.budgets]
        return [(str(one), next(found for found in self.fixed if prices.fits(one, found))) for one in bounds]

    def _slimmed(self, table: CostTable, budgets: Sequence[Budget]) -> list[tuple[str, Architecture]]:
        def show(trial: Trial, most: int) -> None:
            self.show(stage, trial.index + 1, most, f"accuracy {trial.metrics['accuracy']:.3f}")

        stage = "slimming greedily"
        log = self._log({"budgets": [budget.to_dict() for budget in budgets]})
        found = greedy_slim(
            self.mutator.model,
            self.mutator,
            table,
            self._scores,
            budgets,
            calibrate=self.calibration(),
            objective="log_likelihood",
            log=log,
            on_trial=show,
        )
        return [(str(one.budget), one.architecture) for one in found]

    def _searched(self, table: CostTable, budget: Budget) -> Architecture:
        options, stage = self.settings.search, f"searching {budget}"
        history = search(
            self.mutator.model,
            self.mutator,
            self._scores,
            objective="log_likelihood",
            budget=budget,
            table=table,
            strategy=options.strategy,
            num_trials=options.num_trials,
            seed=self.settings.seed,
            calibrate=self.calibration(),
            log=self._log({"budget": budget.to_dict(), "strategy": options.strategy}),
            on_trial=lambda trial, most: self.show(
                stage, trial.index + 1, most, f"accuracy {trial.metrics['accuracy']:.3f}"
            ),
        )
        if history.interrupted:  # the log goes on where it was stopped
            raise KeyboardInterrupt
        return history.best.architecture

    def _log(self, what: Mapping[str, Any]) -> Path:
        text = json.dumps({**what, "calibration": self.settings.search.calibration})
        return self.folder / f"search-{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"

    def _scores(self, model: nn.Module) -> dict[str, float]:
        """The likelihood of the validation labels, which ranks better than the accuracy, and that."""
        right, likelihood, seen = 0, 0.0, 0
        with evaluating(model), torch.inference_mode():
            for inputs, labels in self.data.loader("val", 512):
                logits = model(inputs)
                right += int((logits.argmax(dim=1) == labels).sum())
                likelihood -= float(F.cross_entropy(logits, labels, reduction="sum"))
                seen += len(labels)
        return {"log_likelihood": likelihood / seen, "accuracy": right / seen}

    # ---- subnets -----------------------------------------------------------------------------------------------------

    def calibration(self) -> list[Tensor]:
        """Training inputs, always the same."""
        batches = Batches(self.data, "train", self.settings.supernet.batch_size, self.settings.seed)
        return [batches.at(number)[0] for number in range(self.settings.search.calibration)]

    def subnet(self, architecture: Architecture) -> nn.Module:
        """A new plain model with the weights of the network and BatchNorm statistics of its own.

        A slimmable network has these already, unless two of its architectures share a norm.
        """
        has_own = self.fixed and not shares_norms(self.mutator, self.fixed)
        calibrate = None if has_own else self.calibration()
        return export(self.mutator.model, architecture, mutator=self.mutator, calibrate=calibrate)

    def take_home(self, number: int, budget: str, architecture: Architecture) -> tuple[SlimRow, nn.Module]:
        """A subnet, measured, finetuned if the settings say so, and written to the folder."""
        settings, model = self.settings, self.subnet(architecture)
        shared = accuracy(model, self.data, "val"), accuracy(model, self.data, "test")
        finetuned = None
        if number and settings.finetune.num_steps(self.data.loader("train", settings.supernet.batch_size)):
            teacher = self.subnet(self.largest) if settings.finetune.distill else model
            batches, stage = self.data.loader("train", settings.supernet.batch_size), f"finetuning {budget}"
            options: dict[str, Any] = {"seed": settings.seed, "on_step": shower(self.show, stage)}
            finetune_(model, teacher, batches, loss_of_labels, settings.finetune, **options)
            finetuned = accuracy(model, self.data, "val"), accuracy(model, self.data, "test")
        costs = count(model, self.data.example_inputs)
        metrics = {"test_accuracy": (finetuned or shared)[1]}
        file = save(model, self.folder / f"subnet-{number}.safetensors", metrics=metrics)
        row = SlimRow(budget, architecture, costs.macs, costs.params, *shared, finetuned, file.name)
        return row, model
