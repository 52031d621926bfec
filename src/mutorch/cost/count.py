"""The costs of a plain model."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from mutorch.errors import CostError, nearest
from mutorch.utils import ExampleInputs

from .observe import Convention, observe

MEGABYTE = 1_000_000
METRICS = ("macs", "flops", "params", "act_mem_mb", "size_mb")
"""What is counted, of any model; see `Costs`."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What one model costs on its example inputs.

    Attributes:
        macs: multiply-adds of one forward.
        params: parameters, shared ones once.
        act_mem_mb: the tensors that one forward makes, in MB (10^6 bytes): what training keeps, at most.
        size_mb: parameters and persistent buffers, in MB: what a file takes.
        measured: what a table predicts from measurements, such as `latency_ms`; empty where nothing was measured.

    Example:
        >>> Costs(1000, 20, 0.5, 0.1, {"latency_ms": 2.5})["latency_ms"]
        2.5
    """

    macs: int
    params: int
    act_mem_mb: float
    size_mb: float
    measured: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def flops(self) -> int:
        """Two per multiply-add."""
        return 2 * self.macs

    def __getitem__(self, metric: str) -> float:
        """One metric.

        Errors:
            CostError: neither counted nor measured; never 0 for what nobody measured.
        """
        if metric in self.measured:
            return float(self.measured[metric])
        if metric not in METRICS:
            hint = "; latency has to be measured: see mutorch.latency_table" if "latency" in str(metric) else ""
            raise CostError(f"{metric!r} is not among these costs; {nearest(metric, (*METRICS, *self.measured))}{hint}")
        return float(getattr(self, metric))


def count(model: nn.Module, example_inputs: ExampleInputs, *, convention: Convention = "mac") -> Costs:
    """The costs of `model` on `example_inputs`, as given: a batch of 8 costs eight times one image.

    Args:
        convention: `"mac"`, equal to `torch.utils.flop_counter` / 2, or `"mmr"`; see `mutorch.cost.conventions`.

    Example:
        >>> import torch
        >>> count(nn.Conv2d(3, 32, 3), torch.zeros(1, 3, 224, 224)).macs
        42581376
    """
    observation = observe(model, example_inputs, convention=convention)
    tensors = {id(tensor): tensor for module in model.modules() for tensor in stored_tensors(module)}
    return Costs(
        macs=observation.flops.total() // 2,
        params=sum(parameter.numel() for parameter in model.parameters()),
        act_mem_mb=observation.activation_bytes.total() / MEGABYTE,
        size_mb=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / MEGABYTE,
    )


def stored_tensors(module: nn.Module) -> list[Tensor]:
    """The tensors of `module` itself that its `state_dict` saves."""
    buffers = {n: b for n, b in module._buffers.items() if n not in module._non_persistent_buffers_set}
    return [tensor for tensor in (*module._parameters.values(), *buffers.values()) if tensor is not None]
