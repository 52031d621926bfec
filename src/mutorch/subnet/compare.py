"""Two models side by side, measured."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mutorch.cost import ExampleInputs, call, count, measure_latency
from mutorch.utils import evaluating


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` measured; `print` it for a table.

    Attributes:
        first, second: metric to value: params, macs, size_mb, act_mem_mb, latency_ms (the median of measured forwards).
        max_difference: the largest absolute difference of the outputs; `None` where their shapes differ.
    """

    first: Mapping[str, float]
    second: Mapping[str, float]
    max_difference: float | None

    def __str__(self) -> str:
        lines = [f"{'':<12}{'first':>14}{'second':>14}{'ratio':>9}"]
        for metric, value in self.first.items():
            other = self.second[metric]
            ratio = f"{other / value:.2f}" if value else "-"
            shown = [f"{v:,.0f}" if metric in ("params", "macs") else f"{v:,.3f}" for v in (value, other)]
            lines.append(f"{metric:<12}{shown[0]:>14}{shown[1]:>14}{ratio:>9}")
        if self.second["macs"] < self.first["macs"] and self.second["latency_ms"] >= self.first["latency_ms"]:
            lines.append("fewer macs but no lower latency: small layers cost their launch; try depth or a larger batch")
        if self.max_difference is not None:
            lines.append(f"outputs differ by at most {self.max_difference:.3g}")
        return "\n".join(lines)


def compare(first: nn.Module, second: nn.Module, example_inputs: ExampleInputs, *, repeats: int = 30) -> Comparison:
    """Parameters, operations, sizes, *measured* latency (in turns), and how far the outputs are apart.

    Example:
        >>> result = compare(nn.Linear(4, 4), nn.Linear(4, 2), torch.zeros(1, 4), repeats=3)
        >>> result.second["params"], result.max_difference
        (10.0, None)
    """
    models = (first, second)
    latency = measure_latency(models, example_inputs, repeats=repeats)
    figures = []
    for model, milliseconds in zip(models, latency, strict=True):
        costs = count(model, example_inputs)
        metrics = {metric: costs[metric] for metric in ("params", "macs", "size_mb", "act_mem_mb")}
        figures.append({**metrics, "latency_ms": milliseconds})
    return Comparison(figures[0], figures[1], _difference(first, second, example_inputs))


def _difference(first: nn.Module, second: nn.Module, example_inputs: ExampleInputs) -> float | None:
    outputs = []
    for model in (first, second):
        with evaluating(model), torch.no_grad():
            outputs.append([x for x in tree_flatten(call(model, example_inputs))[0] if isinstance(x, Tensor)])
    if [x.shape for x in outputs[0]] != [x.shape for x in outputs[1]]:
        return None
    pairs = [(a, b) for a, b in zip(*outputs, strict=True) if a.numel()]
    return max(((a.double() - b.double()).abs().max().item() for a, b in pairs), default=0.0)
