"""`python -m benchmarks [speed] [search_quality]`: run, print, and keep the figures in `benchmarks/results/`."""

import json
import platform
import sys
from pathlib import Path

import torch

from benchmarks import (
    channel_methods,
    channels,
    choices,
    detnas,
    differentiable,
    differentiable_quality,
    enas_quality,
    feasible,
    history,
    latency_table,
    pruned_latency,
    pruning_quality,
    samplers,
    search_quality,
    slimmable_quality,
    speed,
    values_in_layers,
    workers,
)

SUITES = {
    "speed": speed.run,
    "search_quality": search_quality.run,
    "channels": channels.run,
    "channel_methods": channel_methods.run,
    "choices": choices.run,
    "pruning_quality": pruning_quality.run,
    "pruned_latency": pruned_latency.run,
    "latency_table": latency_table.run,
    "feasible": feasible.run,
    "samplers": samplers.run,
    "slimmable_quality": slimmable_quality.run,
    "detnas": detnas.run,
    "differentiable": differentiable.run,
    "differentiable_quality": differentiable_quality.run,
    "enas_quality": enas_quality.run,
    "values_in_layers": values_in_layers.run,
    "history": history.run,
    "workers": workers.run,
}
RESULTS = Path(__file__).parent / "results"


def main(names: list[str]) -> None:
    """Run the named suites, or all."""
    for name in names or SUITES:
        if name not in SUITES:
            sys.exit(f"no suite {name!r}; there are: {', '.join(SUITES)}")
        figures = SUITES[name]()
        for what, value in figures.items():
            print(f"{what:<64} {value:10.3f}", flush=True)
        machine = {"torch": torch.__version__, "python": platform.python_version(), "cpu": platform.machine()}
        content = {"machine": machine, "figures": {what: round(value, 4) for what, value in figures.items()}}
        (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
