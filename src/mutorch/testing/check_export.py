"""The invariant, for any supernet: an exported subnet computes what the supernet computes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mutorch.cost import ExampleInputs
from mutorch.errors import ExportError
from mutorch.mutators import Mutator
from mutorch.space import Choice, random_at
from mutorch.subnet import export
from mutorch.utils import outputs_of


def check_export(
    net: nn.Module,
    example_inputs: ExampleInputs,
    *,
    num_architectures: int = 5,
    seed: int = 0,
    tolerance: float = 0.0,
    mutator: Mutator | None = None,
) -> None:
    """Nothing, if `export(net, a)(x)` equals `net(x)` at `a` for random architectures, in evaluation mode.

    Also checked: nothing of mutorch but model classes is inside, and neither net nor its choices changed.

    Args:
        tolerance: how far outputs may differ, absolutely; bit for bit unless given.

    Errors:
        ExportError: names the architecture and the first module whose output differs.

    Example:
        >>> from mutorch.mutables import OneShotMutableOP
        >>> check_export(nn.Sequential(OneShotMutableOP({"a": nn.ReLU(), "b": nn.GELU()})), torch.ones(1, 2))
    """
    mutator = mutator or Mutator(net)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for number in range(num_architectures):
        architecture = mutator.space.sample(random_at(seed, "check export", number))
        exported = export(net, architecture, mutator=mutator)
        with mutator.at(architecture):
            expected, found = outputs_of(net, example_inputs), outputs_of(exported, example_inputs)
        _compare(expected, found, architecture, tolerance)
    for name, tensor in net.state_dict().items():
        if not torch.equal(tensor, before[name]):
            raise ExportError(f"exporting changed {name!r} of the supernet")


def _compare(
    expected: Mapping[str, list[Tensor]],
    found: Mapping[str, list[Tensor]],
    architecture: Mapping[str, Choice],
    tolerance: float,
) -> None:
    if _same(expected[""], found[""], tolerance):
        return
    shared = [path for path in found if path and path in expected]
    first = next((path for path in shared if not _same(expected[path], found[path], tolerance)), "the model's output")
    raise ExportError(f"exported and supernet differ at {dict(architecture)}, first in {first!r}")


def _same(one: list[Tensor], other: list[Tensor], tolerance: float) -> bool:
    if [x.shape for x in one] != [x.shape for x in other]:
        return False
    if tolerance == 0:
        return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    return all(torch.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True) for a, b in zip(one, other, strict=True))
