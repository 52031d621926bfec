"""A table of latencies, built from a few measured subnets."""

import torch
from torch import nn

from mutorch.cost import CostTable, ExampleInputs, LatencyTable, Measured
from mutorch.cost.latency_design import design
from mutorch.errors import ConfigError, SpaceError
from mutorch.mutators import Mutator
from mutorch.space import SearchSpace

from .latency import LatencyRunner, machine
from .subnet_latency import SubnetLatency

NUM_SAMPLES = 200
"""Measured architectures unless given; of a space of fewer, each is measured twice."""


def latency_table(
    net: nn.Module,
    mutator: Mutator,
    example_inputs: ExampleInputs,
    *,
    runner: LatencyRunner | None = None,
    num_samples: int | None = None,
    costs: CostTable | None = None,
    tolerance: float = 0.1,
    seed: int = 0,
) -> LatencyTable:
    """The latency of every architecture of a space, predicted from some whose exported subnets are measured.

    Which ones is chosen so that all choices are told from each other. They take turns in groups, with one subnet in all of them,
    by which a machine that gets slower or faster is corrected. Then a sum of small tables is fitted, and cross-validated: print
    it to see how far it is off.

    Args:
        net, mutator: the supernet; it is left as it is. Latency does not depend on what it has learned.
        runner: how to measure; eagerly where the net is, unless given.
        num_samples: how many measurements; 200 unless given, and no more than two for each architecture of a small space.
        costs: counted costs; latency may then be proportional to macs, memory and size, where that predicts it better. Helps
            where widths are searched.
        tolerance: up to which relative error, of nine of ten architectures, a budget may bound this latency.
        seed: of what is measured, and of the cross-validation.

    Errors:
        ConfigError, MeasureError: see `LatencyRunner`.
        CostError: too few samples to see every choice.

    Example:
        >>> from mutorch.mutables import OneShotMutableOP
        >>> net = nn.Sequential(*(OneShotMutableOP({"linear": nn.Linear(2, 2), "skip": nn.Identity()}) for _ in range(3)))
        >>> layers = LatencyRunner(lambda model, inputs: 1 + sum(isinstance(m, nn.Linear) for m in model.modules()))
        >>> table = latency_table(net, Mutator(net), torch.zeros(1, 2), runner=layers)
        >>> table({"0": "linear", "1": "skip", "2": "linear"}), table.accuracy.large_error
        (3.0, 0.0)
    """
    if costs is not None and costs.space.fingerprint != mutator.space.fingerprint:
        raise ConfigError("costs are of another space than the mutator's; build them with this mutator")
    architectures = design(mutator.space, _number(mutator.space, num_samples), seed)
    subnets = SubnetLatency(net, mutator, example_inputs, runner)
    measured = subnets.measure(architectures)
    terms = {} if costs is None else {metric: costs.factors(metric) for metric in ("macs", "act_mem_mb", "size_mb")}
    return LatencyTable.fit(
        mutator.space,
        architectures,
        [one.median_ms for one in measured],
        measured_on=_setting(measured[0]),
        costs=terms,
        tolerance=tolerance,
        seed=seed,
    )


def _number(space: SearchSpace, given: int | None) -> int:
    if given is not None:
        return given
    try:
        return max(2, min(NUM_SAMPLES, 2 * space.size))
    except SpaceError:  # constraints tie too many decisions together to count
        return NUM_SAMPLES


def _setting(measured: Measured) -> str:
    """How it was measured, in words."""
    own = measured.dtype is not None
    where = f"{measured.device} ({machine(measured.device)})" if own else measured.device
    parts = [
        measured.runtime,
        where,
        measured.dtype,
        f"{measured.threads} threads" if measured.threads is not None else None,
        f"batch {measured.batch}" if measured.batch is not None else None,
        f"torch {torch.__version__}" if own else None,
    ]
    return ", ".join(part for part in parts if part)
