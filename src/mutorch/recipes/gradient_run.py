"""A differentiable search from a config to a plain model.

1. Learn weights and architecture together. 2. Train what was found alone, and beside it what it has to beat: random
architectures trained equally long, the largest and the smallest. 3. Export the winner.

Every stage keeps what it did in the output folder, and the same call goes on where it was stopped.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mutorch.cost import CostTable
from mutorch.space import random_at
from mutorch.utils import whole_file

from .gradient_search import Found, search_by_gradient
from .gradient_settings import GradientSettings
from .methods import as_method
from .progress import Progress
from .settings import Settings
from .spos import Row, Run
from .winner import claim, write_json


@dataclass(frozen=True, slots=True)
class GradientResult:
    """What a run found; `results.json` in its folder holds the same.

    Attributes:
        rows: what was trained alone, the winner first.
        found: what the search found, and how it went.
        method: the method's name, and what it spent.
        space_size: how many architectures there are.
        net: the supernet, trained.
    """

    rows: list[Row]
    found: Found
    method: str
    space_size: int
    table: CostTable
    net: nn.Module
    subnet: nn.Module
    subnet_file: Path
    program_file: Path
    example_inputs: torch.Tensor


def run_differentiable(
    settings: GradientSettings, output: str | os.PathLike[str], *, progress: Progress | None = None
) -> GradientResult:
    """Run the whole recipe; see the top of this file.

    Args:
        settings: model, data, method, trainings.
        output: a folder for checkpoints, the log, results and the exported winner. One folder is one run.

    Errors:
        ResumeError: the folder belongs to a run with other settings.
        StateError: the model has nothing that is learned by gradient.
    """
    run = parts_of(settings, output, progress)
    net = run.build()
    name = settings.method if isinstance(settings.method, str) else settings.method["type"]
    claim(run.output, {k: v for k, v in asdict(settings).items() if k not in ("num_random", "threads")})
    log = run.output / "search.jsonl"
    found = search_by_gradient(
        net,
        run.data,
        method=as_method(settings.method),
        seed=settings.seed,
        checkpoint=run.output / "search.ckpt",
        progress=run.progress,
        on_reading=_logger(log, settings.search.path_steps),
        **asdict(settings.search),
    )
    count = max(1, settings.search.path_steps // settings.retrain.steps)
    count = count if settings.num_random is None else settings.num_random
    space, table = run.table.space, run.table
    rows = run.train_alone(
        {
            "best": [space.canonical(found.architecture)],
            "random": [space.sample(random_at(settings.seed, "random baseline", number)) for number in range(count)],
            "largest": [table.largest()],
            "smallest": [table.cheapest()],
        }
    )
    files = run.export(rows[0])
    method = f"{name}, {found.path_steps:,} path-steps" + (f", stopped: {found.reason}" if found.stopped else "")
    results = {"recipe": "differentiable", "method": method, "log": log.name, "rows": [asdict(row) for row in rows]}
    write_json(run.output / "results.json", results | {"space": json.loads(space.to_json())})
    return GradientResult(
        rows,
        found,
        method,
        space.size,
        table,
        net,
        files.subnet,
        files.subnet_file,
        files.program_file,
        files.example_inputs,
    )


def parts_of(settings: GradientSettings, output: str | os.PathLike[str], progress: Progress | None) -> Run:
    """Data, costs and trainings alone are those of the one-shot recipe."""
    shared = {name: getattr(settings, name) for name in ("model", "data", "retrain", "num_random", "seed", "threads")}
    return Run(Settings(**shared), output, progress)


def _logger(path: Path, path_steps: int) -> Callable[[Found], None]:
    """Writes all readings so far, so that a search that goes on repeats none."""

    def write(found: Found) -> None:
        lines: list[dict[str, Any]] = [{"log": "mutorch differentiable search", "path_steps": path_steps}]
        for number, reading in enumerate(found.readings):
            line = {"reading": number + 1, **asdict(reading)}
            if number < len(found.eigenvalues):
                line["eigenvalue"] = found.eigenvalues[number]
            lines.append(line)
        with whole_file(path) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    return write
