"""Does a supernet compute what its exported subnets compute?"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mutorch.channels.build import SEARCH
from mutorch.channels.mode import ModeError, in_mode
from mutorch.errors import ExportError
from mutorch.mutators import Mutator
from mutorch.space import Architecture, random_at
from mutorch.utils import ExampleInputs, outputs_of

from .export import export


@dataclass(frozen=True, slots=True)
class Check:
    """What `check` found: how far outputs were apart, relative to their scale.

    Attributes:
        num_architectures: how many were compared, the smallest among them.
        exported: the largest difference between the supernet and an exported subnet.
        masked: the largest difference between modes `"slice"` and `"mask"`; `None` for a model that was not made by
            `searchable`, or that has no mode `"mask"`.
    """

    num_architectures: int
    exported: float
    masked: float | None


def check(
    net: nn.Module,
    example_inputs: ExampleInputs | None = None,
    *,
    n: int = 5,
    seed: int = 0,
    tolerance: float = 1e-5,
    mutator: Mutator | None = None,
) -> Check:
    """Compare the supernet with exported subnets at the smallest and at random architectures, in evaluation mode.

    Args:
        example_inputs: what the model is called with; those that `searchable` was given unless named.
        n: how many random architectures.
        tolerance: how far outputs may be apart, relative to the largest of them. They are equal bit for bit except where an
            exported tensor is laid out otherwise in memory, or where masks change the order of a sum.

    Errors:
        ExportError: outputs that differ; names the architecture and the first module that gives something else.

    Example:
        >>> from mutorch import searchable
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> check(searchable(model, torch.ones(1, 4)), n=2).num_architectures
        3
    """
    if example_inputs is None:
        search = vars(net).get(SEARCH)
        if search is None or search.example_inputs is None:
            raise ExportError(
                "check needs example_inputs: the net was not made by searchable, or was pickled with a function for inputs"
            )
        example_inputs = search.example_inputs
    mutator = mutator or Mutator(net)
    architectures = [mutator.space.min, *(mutator.space.sample(random_at(seed, "check", k)) for k in range(n))]
    exported, masked = 0.0, 0.0 if SEARCH in vars(net) else None
    for architecture in architectures:
        with mutator.at(architecture):
            expected = outputs_of(net, example_inputs)
            plain = outputs_of(export(net, architecture, mutator=mutator), example_inputs)
            exported = max(exported, _compared(expected, plain, architecture, tolerance, "the exported subnet"))
            if masked is not None:
                try:
                    with in_mode(net, "mask"):
                        zeroed = outputs_of(net, example_inputs, modules=False)
                except ModeError:
                    masked = None
                    continue
                own = {"": expected[""]}
                masked = max(masked, _compared(own, zeroed, architecture, max(tolerance, 1e-5), "mode 'mask'"))
    return Check(len(architectures), exported, masked)


def _compared(
    expected: Mapping[str, list[Tensor]],
    found: Mapping[str, list[Tensor]],
    architecture: Architecture,
    tolerance: float,
    what: str,
) -> float:
    gap = _gap(expected[""], found[""])
    if gap <= tolerance:
        return gap
    shared = [path for path in found if path and path in expected]
    first = next((path for path in shared if _gap(expected[path], found[path]) > tolerance), None)
    where = f"first in {first!r}" if first is not None else "in the model's own output"
    raise ExportError(f"{what} gives something else than the supernet, {where} (off by {gap:.3g}), at {architecture}")


def _gap(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest difference, relative to the scale of the tensor that it is in."""
    if [x.shape for x in one] != [x.shape for x in other]:
        return float("inf")
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        if a.numel() and not torch.equal(a, b):
            both = torch.isnan(a) & torch.isnan(b) if a.is_floating_point() else torch.zeros_like(a, dtype=torch.bool)
            difference = (a.double() - b.double()).masked_fill(both, 0.0).abs().max().item()
            scale = a.double().masked_fill(both, 0.0).abs().max().item()
            worst = max(worst, difference / max(scale, 1e-12)) if difference == difference else float("inf")
    return worst
