"""Efficient Neural Architecture Search (ENAS, Pham et al., arXiv 1802.03268), from a config to a plain model.

1. Train shared weights and a controller in turn. 2. Let the controller propose architectures, and score each with the shared
weights and its own BatchNorm statistics. 3. Train the best ones alone, and beside them what they have to beat: random
architectures trained equally long, the largest and the smallest. 4. Export the winner.

Every stage keeps what it did in the output folder, and the same call goes on where it was stopped. For a loop of your own see
`search_by_controller`, and the two steps that it is made of, `mutorch.training.child_step` and `controller_step`.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mutorch.cost import CostTable
from mutorch.errors import StateError
from mutorch.mutators import EnasMutator
from mutorch.search import Feasible, History, Strategy, StrategyFactory, Trial
from mutorch.search.loop import OnTrial
from mutorch.space import Architecture, random_at

from .enas_search import Round, search_by_controller
from .enas_settings import EnasSettings
from .progress import Progress
from .settings import Searching, Settings, Training
from .spos import Row, Run
from .winner import claim, write_json

MAX_ATTEMPTS = 50
"""Samples of the controller that are tried before an architecture is drawn uniformly."""


@dataclass(frozen=True, slots=True)
class EnasResult:
    """What a run found; `results.json` in its folder holds the same.

    Attributes:
        rows: what was trained alone, the winner first.
        history: what was proposed, scored with the shared weights.
        rounds: how the search went.
        method: what it spent.
        space_size: how many architectures there are.
        net: the supernet, trained.
    """

    rows: list[Row]
    history: History
    rounds: list[Round]
    method: str
    space_size: int
    table: CostTable
    net: nn.Module
    subnet: nn.Module
    subnet_file: Path
    program_file: Path
    example_inputs: Tensor


def enas(
    settings: EnasSettings,
    output: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    on_trial: Sequence[OnTrial] = (),
) -> EnasResult:
    """Run the whole recipe; see the top of this file.

    Args:
        settings: model, data, controller, trainings.
        output: a folder for checkpoints, the log, results and the exported winner. One folder is one run.
        on_trial: as for `spos`.

    Errors:
        ResumeError: the folder belongs to a run with other settings.
        InfeasibleBudgetError: a budget that cannot be met, before anything is trained.
    """
    run = EnasRun(settings, output, progress)
    run.listeners = tuple(on_trial)
    budget = run.budget  # one that cannot be met fails before anything is trained
    run.train_supernet()
    history = run.search()
    rows = run.train_alone(run.chosen(history))
    files = run.export(rows[0])
    method = f"controller, {len(run.rounds)} rounds, {settings.search.path_steps:,} path-steps"
    method += f", budget {budget}" if settings.search.budget else ""
    results = {"recipe": "enas", "method": method, "log": run.log.name, "rows": [asdict(row) for row in rows]}
    results["space"] = json.loads(run.table.space.to_json())
    write_json(run.output / "results.json", results | {"rounds": [asdict(one) for one in run.rounds]})
    return EnasResult(
        rows,
        history,
        run.rounds,
        method,
        run.table.space.size,
        run.table,
        run.net,
        files.subnet,
        files.subnet_file,
        files.program_file,
        files.example_inputs,
    )


class EnasRun(Run):
    """The stages of the recipe: those of the one-shot recipe, with a controller that is trained, and that proposes.

    Args:
        settings, output, progress: as for `enas`.

    Attributes:
        controller: of the supernet.
        rounds: how its training went; empty before.

    Errors:
        StateError: the model has other decisions than `LayerChoice` and `InputChoice`.
    """

    def __init__(
        self, settings: EnasSettings, output: str | os.PathLike[str], progress: Progress | None = None
    ) -> None:
        self.enas = settings
        super().__init__(_shared(settings), output, progress)
        options: Mapping[str, Any] = settings.controller
        self.controller = EnasMutator(self.net, seed=settings.seed, **options)
        self.rounds: list[Round] = []
        drawn = {choice.key for choice in self.controller.choosers}
        others = [name for name in self.table.space.names if name not in drawn]
        if others:
            raise StateError(
                f"a controller decides LayerChoice and InputChoice, and {others[0]!r} is neither; the recipe spos searches all "
                "decisions"
            )

    def train_supernet(self) -> None:
        """Train shared weights and controller, or read what was trained.

        Errors:
            ResumeError: the output folder belongs to a run with other settings.
        """
        self._claim()
        search = asdict(self.enas.search)
        for name in _AFTERWARDS:
            del search[name]
        self.rounds = search_by_controller(
            self.net,
            self.controller,
            self.data,
            **search,
            seed=self.enas.seed,
            checkpoint=self.output / "search.ckpt",
            progress=self.progress,
        )

    @property
    def strategy(self) -> StrategyFactory:
        """What the controller proposes."""

        def controller(feasible: Feasible, seed: int) -> Strategy:
            return Proposals(self.controller, feasible, seed)

        return controller

    def _claim(self) -> None:
        settings = asdict(self.enas)
        search = settings.pop("search")
        mine = {name: settings[name] for name in ("model", "data", "controller", "retrain", "seed")}
        # One by one, so that the error names the one that differs.
        claim(self.output, mine | {f"search.{name}": search[name] for name in search if name not in _AFTERWARDS})


_AFTERWARDS = ("num_candidates", "calibration_samples", "budget")
"""Settings of the search that the trained weights do not depend on."""


class Proposals:
    """Architectures that a controller proposes, each once: the likeliest first, then samples. A `Strategy`.

    Where samples repeat, or do not keep to the budget, architectures are drawn uniformly.

    Args:
        controller: is not trained meanwhile.
        feasible, seed: see `StrategyFactory`.
    """

    def __init__(self, controller: EnasMutator, feasible: Feasible, seed: int) -> None:
        self._controller, self._feasible, self._seed = controller, feasible, seed
        self._asked = 0

    def ask(self) -> Architecture | None:
        self._asked += 1
        rng = random_at(self._seed, "proposal", self._asked)
        if self._asked == 1:
            likeliest = self._feasible.accept(self._controller.likeliest())
            if likeliest is not None:
                return likeliest
        self._controller.generator.manual_seed(rng.getrandbits(63))
        for _ in range(MAX_ATTEMPTS):
            accepted = self._feasible.accept(self._controller.sample())
            if accepted is not None:
                return accepted
        return self._feasible.draw(rng)

    def tell(self, trial: Trial) -> None:
        pass


def _shared(settings: EnasSettings) -> Settings:
    """Data, costs, scores and trainings alone are those of the one-shot recipe."""
    search = settings.search
    same = ("model", "data", "retrain", "num_retrained", "num_random", "seed", "threads")
    return Settings(
        **{name: getattr(settings, name) for name in same},
        supernet=Training(steps=search.path_steps),
        search=Searching(
            budget=search.budget, num_trials=search.num_candidates, calibration_samples=search.calibration_samples
        ),
    )
