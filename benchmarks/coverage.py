"""Does it work on these models, and is the result right? `python -m benchmarks.coverage [SOURCE ...] [--only NAME ...]`.

Each model of `benchmarks.zoo` is made searchable; random architectures, and the smallest one, are run forward and backward in
the supernet and as exported plain models, which must agree. Needs the extra `zoo`.
"""

import argparse
import gc
import json
import platform
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mutorch
from benchmarks.zoo import timm_models, torchvision_models, transformers_models
from benchmarks.zoo.entry import Entry
from mutorch.channels import widths
from mutorch.channels.searchable import SEARCH, searchable
from mutorch.cost import count
from mutorch.utils import tensors_in

SOURCES = {
    "torchvision": torchvision_models.entries,
    "timm": timm_models.entries,
    "transformers": transformers_models.entries,
}
TOLERANCE = 1e-5
"""Relative to the output's scale; what does not change the order of a sum is bit-equal."""


def measure(entry: Entry, num_architectures: int) -> dict[str, Any]:
    """What one model shows; the first error ends it."""
    result: dict[str, Any] = {"name": entry.name, "runs": False, "exact": False}
    model = entry.make()
    total = sum(parameter.numel() for parameter in model.parameters())
    start = time.perf_counter()
    net = searchable(model, entry.example_inputs, rules=[widths(ratios=(0.25, 0.5, 0.75, 1.0))])
    result["seconds"] = round(time.perf_counter() - start, 2)
    search = net.__dict__[SEARCH]
    inside = {place.path for place in search.structure.dims}
    result["units"] = len(search.units)
    held = sum(p.numel() for name, p in net.named_parameters() if name in inside)
    reached = sum(p.numel() for p in net.parameters() if id(p) in search.observer.seen_parameters)
    result["parameters"] = total
    result["covered"] = round(held / max(reached, 1), 4)
    mutator = mutorch.Mutator(net)
    worst = 0.0
    same = _difference(_outputs(entry, model), _outputs(entry, net))
    smallest: nn.Module | None = None
    for architecture in [mutator.space.min, *(mutator.space.sample(seed) for seed in range(num_architectures))]:
        exported = mutorch.export(net, architecture, mutator=mutator)
        if smallest is None:
            smallest = exported
        with mutator.at(architecture):
            expected = _outputs(entry, net)
        worst = max(worst, _difference(expected, _outputs(entry, exported)))
        _backward(entry, exported)
    result["runs"] = True
    result["difference"] = max(worst, same)
    result["exact"] = result["difference"] <= TOLERANCE
    macs = count(model, entry.example_inputs).macs
    assert smallest is not None
    result["smallest_macs"] = round(count(smallest, entry.example_inputs).macs / macs, 4) if macs else None
    result["smallest_params"] = round(sum(p.numel() for p in smallest.parameters()) / total, 4)
    result["unknown"] = {f"{op} in {path}": count for (op, path), count in search.observer.unknown.items()}
    reasons = Counter(reason for _, reason in search.structure.frozen if reason.startswith("a narrower"))
    result["trials_froze"] = dict(reasons.most_common(5))
    return result


def _outputs(entry: Entry, model: nn.Module) -> list[Tensor]:
    with torch.no_grad():
        return [x for x in tensors_in(entry.run(model)) if x.is_floating_point()]


def _difference(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference, relative to the scale of the output it is in."""
    if [x.shape for x in one] != [x.shape for x in other]:
        return float("inf")
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        if a.numel():
            gap = (a - b).abs().max().item()
            worst = max(worst, gap / max(a.abs().max().item(), 1e-12) if gap else 0.0)
            if not torch.isfinite(b).all() and torch.isfinite(a).all():
                return float("inf")
    return worst


def _backward(entry: Entry, model: nn.Module) -> None:
    outputs = [x for x in tensors_in(entry.run(model)) if x.is_floating_point() and x.requires_grad]
    if outputs:
        torch.stack([x.sum() for x in outputs]).sum().backward()


def main() -> None:
    """Measure, print a line a model, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="*", default=list(SOURCES))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--architectures", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table: dict[str, list[Mapping[str, Any]]] = {}
    for source in options.sources:
        rows = table.setdefault(source, [])
        for entry in SOURCES[source]().values():
            if (entry.large and not options.large) or (options.only and entry.name not in options.only):
                continue
            try:
                row = measure(entry, options.architectures)
            except Exception as error:
                row = {
                    "name": entry.name,
                    "runs": False,
                    "exact": False,
                    "error": f"{type(error).__name__}: {error}"[:300],
                }
                if options.only:
                    traceback.print_exc()
            rows.append(row)
            print(json.dumps(row), flush=True)
            gc.collect()
        print(source, summary(rows), flush=True)
    if options.out:
        setting = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "architectures": options.architectures,
        }
        summaries = {source: summary(rows) for source, rows in table.items()}
        text = json.dumps({"setting": setting, "summary": summaries, "models": table}, indent=1)
        options.out.write_text(text + "\n", encoding="utf-8")


def summary(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """How many models were tried, ran, were exact, and reach half of their MACs; the median share of covered parameters."""
    covered = sorted(row.get("covered", 0.0) for row in rows)
    return {
        "tried": len(rows),
        "run": sum(bool(row["runs"]) for row in rows),
        "exact": sum(bool(row["exact"]) for row in rows),
        "half of the macs": sum(row["exact"] and (row.get("smallest_macs") or 1) <= 0.5 for row in rows),
        "median share of parameters inside units": covered[len(covered) // 2] if covered else None,
        "least share": covered[0] if covered else None,
    }


if __name__ == "__main__":
    main()
