"""Networks of many sizes that are trained once: slimmable, US-Net, AutoSlim, BigNAS, OFA; from a config to a plain model a budget.

1. Train one network at several of its sizes in each step. 2. Choose an architecture for each budget. 3. Export each with
BatchNorm statistics of its own, measure it, and finetune it if the config says so.

| recipe | sizes of a step | how an architecture is chosen |
|---|---|---|
| `slimmable` (arXiv 1812.08928) | all of a few; each width has batch norms of its own | those that were trained |
| `us-net` (1903.05134) | largest, smallest, random; one share in all layers | one share in all layers |
| `autoslim` (1903.11728) | largest, smallest, random | greedy slimming: one walk for all budgets |
| `bignas` (2003.11142) | largest, smallest, random; kernels, depths, resolutions too | a search under each budget |
| `ofa` (1908.09791) | largest and random, of ever more choices | a search under each budget |
"""

import os
from dataclasses import asdict, dataclass

from torch import nn

from mutorch.mutators import Mutator

from .progress import Progress
from .slimmable_run import SlimRow, SlimRun
from .slimmable_settings import SlimmableSettings
from .winner import write_json


@dataclass(frozen=True, slots=True)
class Slim:
    """What a run made; `results.json` in its folder holds the rows.

    Attributes:
        rows: the whole network first, then one for each budget, in their order.
        models: the plain model of each row, finetuned where there was finetuning.
        net: the network of many sizes, trained.
        mutator: its mutator.
        recipe: the name of the method.
        passes: forwards and backwards of one architecture on one batch that the training took.
    """

    recipe: str
    rows: list[SlimRow]
    models: list[nn.Module]
    net: nn.Module
    mutator: Mutator
    passes: int


def slimmable(settings: SlimmableSettings, output: str | os.PathLike[str], *, progress: Progress | None = None) -> Slim:
    """Run the whole recipe; see the top of this file.

    Args:
        output: a folder for the network, the log of the search, the subnets and the table. One folder is one network; the same
            call goes on where it was stopped, and other budgets are searched with the network that was trained.

    Errors:
        InfeasibleBudgetError: before anything is trained.
        LoadError: weights that do not fit.
        ResumeError: the folder belongs to a run with other settings.
    """
    run = SlimRun(settings, output, progress)
    run.train()
    found = run.choose()
    kept = [("largest", run.largest), *found]
    rows, models = [], []
    for number, (budget, architecture) in enumerate(kept):
        run.show("measuring subnets", number, len(kept), budget)
        row, model = run.take_home(number, budget, architecture)
        rows.append(row)
        models.append(model)
    run.show("measuring subnets", len(kept), len(kept), "")
    write_json(
        run.folder / "results.json",
        {"recipe": settings.recipe, "passes": run.passes, "rows": [asdict(row) for row in rows]},
    )
    return Slim(settings.recipe, rows, models, run.mutator.model, run.mutator, run.passes)
