"""Single Path One-Shot search (Guo et al., arXiv 1904.00420), from a config to a plain model.

1. Train one supernet, one uniform path a step. 2. Search it under a budget: each candidate takes the supernet's weights
and its own BatchNorm statistics. 3. Train the best ones alone, and beside them what they have to beat: the largest and the
smallest subnet, and random ones within the same budget. 4. Export the winner.

Every stage keeps what it did in the output folder, and the same call goes on where it was stopped.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mutorch.cost import Budget, CostTable, measure_latency
from mutorch.mutators import Mutator
from mutorch.registry import DATASETS
from mutorch.search import Feasible, History, RandomSearch, StrategyFactory, search
from mutorch.search.loop import OnTrial
from mutorch.search.winners import with_latency
from mutorch.space import Architecture
from mutorch.subnet import LatencyRunner, export
from mutorch.training import fit
from mutorch.utils import evaluating

from .building import build_model
from .data import Data
from .progress import Progress
from .settings import Settings, Training, runner_and_options
from .winner import Winner, claim, export_winner, write_json

SEARCHING = "searching"
"""The stage in which subnets are scored, as `Progress` is told."""


@dataclass(frozen=True, slots=True)
class Row:
    """One subnet that was trained alone.

    Attributes:
        role: why: winner, runner-up, random baseline, largest, smallest.
        val_accuracy, test_accuracy: shares between 0 and 1; the validation accuracy chose, the test accuracy tells. Where the
            result's `metric` is another one than accuracy, these are it.
        macs, params: of one sample.
        latency_ms: the median of measured forwards of one sample on this machine.
    """

    role: str
    architecture: Architecture
    val_accuracy: float
    test_accuracy: float
    macs: int
    params: int
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found; `results.json` in its folder holds the same.

    Attributes:
        rows: what was trained alone, the winner first.
        metric: what the accuracies in `rows` are.
    """

    rows: list[Row]
    history: History
    budget: str
    space_size: int
    table: CostTable
    subnet: nn.Module
    subnet_file: Path
    program_file: Path
    example_inputs: Tensor
    metric: str = "accuracy"


def spos(
    settings: Settings,
    output: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    on_trial: Sequence[OnTrial] = (),
) -> Result:
    """Run the whole recipe; see the top of this file.

    Args:
        settings: model, data, trainings, search.
        output: a folder for checkpoints, the log, results and the exported winner. One folder is one run.
        on_trial: called after each trial of the search, as in `mutorch.search`: loggers, a live view.

    Errors:
        ResumeError: the folder belongs to a run with other settings.
    """
    return run_whole(Run(settings, output, progress), on_trial)


def run_whole(run: "Run", on_trial: Sequence[OnTrial] = ()) -> Result:
    """All stages of a run, one after the other."""
    run.listeners = tuple(on_trial)
    _ = run.budget  # one that cannot be met fails before anything is trained
    run.train_supernet()
    history = run.search()
    rows = run.train_alone(run.chosen(history))
    files = run.export(rows[0])
    measured = {index: asdict(one) for index, one in history.measured.items()}
    results = {"budget": str(run.budget), "metric": run.metric, "log": run.log.name, "measured": measured}
    results |= {"space": json.loads(run.table.space.to_json())}
    write_json(run.output / "results.json", results | {"rows": [asdict(row) for row in rows]})
    return Result(
        rows,
        history,
        str(run.budget),
        run.table.space.size,
        run.table,
        files.subnet,
        files.subnet_file,
        files.program_file,
        files.example_inputs,
        run.metric,
    )


class Run:
    """The stages of the recipe, and the folder that they share; for those who want one stage alone.

    Args:
        settings, output, progress: as for `spos`.

    Attributes:
        data: the data set.
        net, mutator: the supernet, untrained at first.
        table: its costs.
        runner: what measures latency, where the settings say so; the table then has it.
        listeners: called after each trial of the search.
        metric: the entry of `evaluate` that chooses and tells among subnets that were trained alone.
        objective: the entry that the search maximises. The likelihood ranks subnets better than their accuracy: it is less
            noisy on the same images.
        lasting: the settings that the trained weights depend on. The rest may change from call to call.

    Another task is a subclass with another `loss` and `evaluate`, and these names; `DetNASRun` is one.
    """

    metric = "accuracy"
    objective = "log_likelihood"
    lasting: tuple[str, ...] = ("model", "data", "supernet", "retrain", "seed")

    def __init__(self, settings: Settings, output: str | os.PathLike[str], progress: Progress | None = None) -> None:
        self.settings = settings
        self.output = Path(output)
        self.progress = progress or (lambda *_: None)
        self.listeners: tuple[OnTrial, ...] = ()
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.data: Data = DATASETS.build(dict(settings.data))
        self.net = self.build()
        self.mutator = Mutator(self.net)
        self.runner: LatencyRunner | None = None
        self.table = CostTable.from_model(self.mutator, self.data.example_inputs)
        if settings.search.latency is not None:
            self.runner, options = runner_and_options(settings.search.latency)
            file = self.output / f"latency-{_digest(settings.search.latency)}.json"
            self.table = with_latency(
                self.table, self.net, self.mutator, self.data.example_inputs, self.runner, file, **options
            )

    @cached_property
    def budget(self) -> Budget:
        """The bounds on the costs.

        Errors:
            InfeasibleBudgetError: bounds that cannot be met; the recipe asks before it trains anything.
        """
        return Budget.parse(self.settings.search.budget, self.table)

    @property
    def log(self) -> Path:
        """The log of the search; another budget or way to search has another one, beside it."""
        changeable = ("num_trials", "workers")  # a log goes on with more trials, whoever evaluates them
        options = {name: value for name, value in asdict(self.settings.search).items() if name not in changeable}
        return self.output / f"search-{_digest(options)}.jsonl"

    def train_supernet(self) -> None:
        """Train the supernet, or read what was trained.

        Errors:
            ResumeError: the output folder belongs to a run with other settings.
        """
        self._claim()
        self._fit(
            self.net, self.settings.supernet, "training the supernet", self.output / "supernet.ckpt", self.mutator
        )

    def search(self) -> History:
        """Score subnets with the supernet's weights on validation data, by `objective`."""
        options = self.settings.search
        batches = self.calibration_batches()
        stage = SEARCHING
        self.progress(stage, 0, options.num_trials, "")
        history = search(
            self.net,
            self.mutator,
            lambda model: self.evaluate(model, self.data.loader("val", 512)),
            objective=options.objective or self.objective,
            budget=self.budget,
            table=self.table,
            example_inputs=self.data.example_inputs,
            runner=self.runner,
            strategy=self.strategy,
            num_trials=options.num_trials,
            seed=self.settings.seed,
            calibrate=batches,
            workers=options.workers,
            ahead=options.ahead,
            log=self.log,
            on_trial=[
                lambda trial, count: self.progress(
                    stage, trial.index + 1, count, f"{self.metric} {trial.metrics[self.metric]:.3f}"
                ),
                *self.listeners,
            ],
        )
        self.progress(stage, options.num_trials, options.num_trials, f"{len(history)} subnets")
        return history

    @property
    def strategy(self) -> str | StrategyFactory:
        """Which subnets are scored."""
        return self.settings.search.strategy

    def calibration_batches(self) -> list[Tensor]:
        """Training inputs, always the same."""
        batches, left = [], self.settings.search.calibration_samples
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            for inputs, _ in self.data.loader("train", 256):
                batches.append(inputs[:left])
                left -= len(inputs)
                if left <= 0:
                    break
        return batches

    def chosen(self, history: History) -> dict[str, list[Architecture]]:
        """What is trained alone: the best of the search, and the baselines."""
        settings = self.settings
        count = (
            settings.supernet.steps // settings.retrain.steps if settings.num_random is None else settings.num_random
        )
        chooser = RandomSearch(Feasible(self.table.space, self.table, self.budget), settings.seed)
        drawn = [architecture for _ in range(count) if (architecture := chooser.ask()) is not None]
        return {
            "best": [trial.architecture for trial in history.top(settings.num_retrained)],
            "random": drawn,
            "largest": [self.table.largest()],
            "smallest": [self.table.cheapest()],
        }

    def train_alone(self, chosen: Mapping[str, list[Architecture]]) -> list[Row]:
        """The table, winner first. Every subnet is trained from its own fresh weights, and once."""
        wanted = {json.dumps(a): a for architectures in chosen.values() for a in architectures}
        stage, done = "training subnets alone", 0
        scores: dict[str, tuple[float, float]] = {}
        for key, architecture in wanted.items():
            self.progress(stage, done, len(wanted), "")
            scores[key] = self.scores(architecture)
            done += 1
        self.progress(stage, done, len(wanted), "")

        def by_validation(architecture: Architecture) -> float:
            return scores[json.dumps(architecture)][0]

        best = sorted(chosen["best"], key=by_validation, reverse=True)
        roles = [("winner", best[0]), *(("runner-up", architecture) for architecture in best[1:3])]
        if chosen["random"]:
            roles.append((f"best of {len(chosen['random'])} random", max(chosen["random"], key=by_validation)))
        roles += [("largest", chosen["largest"][0]), ("smallest", chosen["smallest"][0])]
        models = [self.trained_subnet(architecture) for _, architecture in roles]
        latencies = measure_latency(models, self.data.example_inputs, repeats=50)
        return [
            Row(role, a, *scores[json.dumps(a)], self.table(a).macs, self.table(a).params, latency)
            for (role, a), latency in zip(roles, latencies, strict=True)
        ]

    def trained_subnet(self, architecture: Architecture) -> nn.Module:
        """A subnet trained alone, from its checkpoint if there is one."""
        model = export(self.build(), architecture)
        self._fit(model, self.settings.retrain, None, self.output / "alone" / f"{_digest(architecture)}.ckpt")
        return model

    def export(self, row: Row) -> Winner:
        """Files of a subnet as it was trained alone."""
        metrics = {f"val_{self.metric}": row.val_accuracy, f"test_{self.metric}": row.test_accuracy}
        model = self.trained_subnet(row.architecture)
        return export_winner(model, metrics, self.data.example_inputs, self.output, self.progress)

    def scores(self, architecture: Architecture) -> tuple[float, float]:
        """Validation and test accuracy, or what `metric` is, of a subnet that was trained alone."""
        model = self.trained_subnet(architecture)
        return tuple(self.evaluate(model, self.data.loader(split, 512))[self.metric] for split in ("val", "test"))  # type: ignore[return-value]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """What training minimises, of a batch of the loader: the cross-entropy."""
        return F.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, loader: DataLoader[Any]) -> dict[str, float]:
        """How good a plain model is: `accuracy` and `log_likelihood`, a mean over all labels."""
        correct, likelihood, count = 0, 0.0, 0
        with evaluating(model), torch.inference_mode():
            for inputs, labels in loader:
                logits = model(inputs)
                correct += int((logits.argmax(dim=1) == labels).sum())
                likelihood -= float(F.cross_entropy(logits, labels, reduction="sum"))
                count += len(labels)
        return {"accuracy": correct / count, "log_likelihood": likelihood / count}

    def build(self) -> nn.Module:
        """A new model, always with the same weights."""
        return build_model(self.settings.model, self.settings.seed)

    def _fit(
        self, model: nn.Module, training: Training, stage: str | None, checkpoint: Path, mutator: Mutator | None = None
    ) -> None:
        fit_by_sgd(
            model,
            self.data,
            self.loss,
            training,
            mutator=mutator,
            seed=self.settings.seed,
            checkpoint=checkpoint,
            on_step=None if stage is None else self._shower(stage),
        )
        if stage is not None:
            self.progress(stage, training.steps, training.steps, "")

    def _shower(self, stage: str) -> Callable[[int, int, Tensor], None]:
        def show(done: int, total: int, loss: Tensor) -> None:
            if done % 20 == 0 or done == total:
                self.progress(stage, done, total, f"loss {float(loss):.3f}")

        return show

    def _claim(self) -> None:
        settings = asdict(self.settings)
        claim(self.output, {name: settings[name] for name in self.lasting})


def fit_by_sgd(
    model: nn.Module, data: Data, loss: Callable[[nn.Module, Any], Tensor], training: Training, **options: Any
) -> None:
    """Train a model on the training split, with what `Training` says.

    Args:
        loss: of the model and a batch.
        options: for `mutorch.training.fit`: `mutator`, `seed`, `checkpoint`, `on_step`.
    """
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        nesterov=training.momentum > 0,
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    batches = data.loader("train", training.batch_size)
    fit(model, batches, loss, optimizer, steps=training.steps, scheduler=scheduler, **options)


def _digest(content: Any) -> str:
    """A short name for plain data, the same in every process."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
