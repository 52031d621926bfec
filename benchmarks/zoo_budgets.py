"""Is a budget hit within one step of the divisor? `python -m benchmarks.zoo_budgets [SOURCE ...] [--only NAME ...]`.

Each model of `benchmarks.zoo` is cut to half of its multiply-adds by the allocation of `mutorch.shrink`, nothing trained. It is
hit if the exported model is within the budget, and no unit could be one step wider. Needs the extra `zoo`.
"""

import argparse
import gc
import json
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.coverage import SOURCES
from benchmarks.zoo.entry import Entry
from mutorch.channels import widths
from mutorch.channels.searchable import searchable
from mutorch.cost import count
from mutorch.mutators import Mutator
from mutorch.pruning import Prices, uniform
from mutorch.pruning.shrink import SHARES
from mutorch.subnet import export

SHARE = 0.5


def measure(entry: Entry) -> dict[str, Any]:
    """What one model shows."""
    result: dict[str, Any] = {"name": entry.name}
    start = time.perf_counter()
    model = entry.make()
    net = searchable(model, entry.example_inputs, rules=[widths(ratios=SHARES, divisor=8)])
    mutator = Mutator(net)
    prices = Prices(mutator, entry.example_inputs, min_ratio=0.05)
    low, whole = prices.reachable("macs")
    result |= {"units": len(prices.widths), "table": prices.table is not None, "narrowest": round(low / whole, 4)}
    if low > SHARE * whole:
        return {**result, "hit": None}
    budget = prices.budget({"macs": f"{SHARE:.0%}"})
    found = uniform(prices, budget, {})
    counted = count(export(net, {**mutator.space.default, **found}, mutator=mutator), entry.example_inputs).macs
    result["macs"] = round(counted / whole, 4)
    result["could_be_wider"] = [name for name in prices.widths if _fits_wider(prices, budget, found, name)]
    result["hit"] = counted <= SHARE * whole and not result["could_be_wider"]
    result["seconds"] = round(time.perf_counter() - start, 1)
    return result


def _fits_wider(prices: Prices, budget: Any, found: dict[str, Any], name: str) -> bool:
    wider = [width for width in prices.widths[name] if width > found[name]]
    return bool(wider) and prices.fits(budget, {**found, name: wider[0]})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the named sources, or all, and keep the figures in `benchmarks/results/`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*", default=list(SOURCES))
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--lines", type=Path, help="a file that gets one line a model; models in it are not run again")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = options.lines.read_text().splitlines() if options.lines and options.lines.exists() else []
    rows = [json.loads(line) for line in known]
    for source in options.sources:
        for entry in SOURCES[source]().values():
            left_out = entry.large or (options.only and entry.name not in options.only)
            if left_out or entry.name in [row["name"] for row in rows]:
                continue
            try:
                row = measure(entry)
            except Exception as error:
                traceback.print_exc()
                row = {"name": entry.name, "hit": False, "error": f"{type(error).__name__}: {error}"[:300]}
            rows.append({"source": source, **row})
            print(json.dumps(rows[-1]), flush=True)
            if options.lines:
                with options.lines.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
            gc.collect()
    outcome = {
        "models": len(rows),
        "hit": sum(row["hit"] is True for row in rows),
        "cannot reach half": [row["name"] for row in rows if row["hit"] is None],
        "missed": [row["name"] for row in rows if row["hit"] is False],
    }
    print(json.dumps(outcome, indent=1))
    content = {"figures": outcome, "models": rows}
    (Path(__file__).parent / "results" / "zoo_budgets.json").write_text(
        json.dumps(content, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
