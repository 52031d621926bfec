"""Channels by the Fisher information of a mask over them, summed over all layers of a unit."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mutorch.cost import CostTable
from mutorch.errors import ConfigError, CostError, nearest
from mutorch.mutators import Mutator
from mutorch.utils import evaluating

from .mask_gradients import MaskGradients
from .places import search_of, unit_places
from .taylor import change_of, gates

Saving = Literal["memory", "macs"]
METRICS: dict[Saving, str] = {"memory": "act_mem_mb", "macs": "macs"}
"""What a score may be divided by, and the cost that it is."""
CLOSE = 1e-3
"""How far, in shares of the largest, gradients of one sample may be from those of the sample alone."""


@dataclass(frozen=True, slots=True)
class GroupFisher:
    """The squared gradient of a mask over each channel, the mean over samples (Liu et al., arXiv 2108.00708).

    The mask multiplies the channels of a unit in all layers that read them; a sample's gradient is summed over these
    layers before it is squared, as channels that belong together go together. Divided by what one channel of the unit
    costs, scores of all units compare: `allocation="absolute"`. The model computes in evaluation mode, at full width.

    One backward of a batch gives the gradients of all its samples where convolutions and linear layers read the channels.
    On the first batch that is compared with the first sample alone. Units where it differs, or that something else
    reads, are scored by a backward for each sample.

    Attributes:
        batches: what `loss` takes, samples along the first dimension of every tensor; read from the start at each call.
        loss: takes the model and a batch, returns the mean loss of the samples.
        num_batches: how many to use.
        normalise: what a channel's saving is counted in: `"memory"` (activations, as published), `"macs"`, or `None`.

    Example:
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), torch.zeros(1, 2))
        >>> scores = GroupFisher([torch.ones(3, 2)], lambda model, x: model(x).pow(2).mean())(net)
        >>> tuple(scores["0"].shape)
        (4,)
    """

    batches: Iterable[Any]
    loss: Callable[[nn.Module, Any], Tensor]
    num_batches: int | None = 32
    normalise: Saving | None = "memory"

    def __post_init__(self) -> None:
        check_saving(self.normalise)

    def __call__(self, net: nn.Module) -> dict[str, Tensor]:
        """Unit name to one score a channel.

        Errors:
            ConfigError: no batches, or batches that cannot be taken apart into samples.
            CostError: what channels save cannot be counted.
        """
        mutator = Mutator(net)
        channels = {name: places[0].num_channels for name, places in unit_places(net).items()}
        squares = {name: torch.zeros(count, dtype=torch.float64) for name, count in channels.items()}
        gradients, count = MaskGradients(net), 0
        slow: list[str] | None = None
        with mutator.at(mutator.space.default), evaluating(net), torch.enable_grad(), gradients.watching():
            for batch in islice(self.batches, self.num_batches):
                size = num_samples(batch)
                found = gradients_of_batch(net, gradients, self.loss, batch, size)
                if slow is None:
                    slow = inseparable(net, found, self.loss, next(samples_of(batch, size)))
                for name, rows in found.items():
                    if name not in slow:
                        squares[name] += rows.double().pow(2).sum(dim=0).cpu()
                for sample in samples_of(batch, size) if slow else ():
                    for name, row in gradients_alone(net, self.loss, sample, slow).items():
                        squares[name] += row.pow(2)
                gradients.take(1)  # what the samples alone left
                count += size
        if not count:
            raise ConfigError("GroupFisher has no batches: they are empty, or an iterator that can be read only once")
        scores = {name: total / count for name, total in squares.items()}
        if self.normalise is None:
            return scores
        saved = saved_per_channel(mutator, self.normalise)
        return {name: total / saved[name] for name, total in scores.items()}


def gradients_of_batch(
    net: nn.Module, gradients: MaskGradients, loss: Callable[[nn.Module, Any], Tensor], batch: Any, size: int
) -> dict[str, Tensor]:
    """Unit to the gradient of each sample's loss, from the mean of them, of which each has a share."""
    gradients.differentiate(loss(net, batch))
    return {name: rows * size for name, rows in gradients.take(size).items()}


def inseparable(
    net: nn.Module, found: Mapping[str, Tensor], loss: Callable[[nn.Module, Any], Tensor], first: Any
) -> list[str]:
    """The units of which the gradients of a batch do not tell that of its first sample, which is run alone."""
    different = []
    for name, row in gradients_alone(net, loss, first).items():
        close = CLOSE * float(row.abs().max())
        if name not in found or not torch.allclose(found[name][0].double().cpu(), row, rtol=CLOSE, atol=close):
            different.append(name)
    return different


def gradients_alone(
    net: nn.Module, loss: Callable[[nn.Module, Any], Tensor], sample: Any, units: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Unit to the gradients for one sample: weight times gradient, summed over what belongs to each channel."""
    places = unit_places(net)
    return change_of({name: gates(places[name]) for name in units or places}, partial(loss, net, sample))


def num_samples(batch: Any) -> int:
    """How many samples a batch has: the first dimension of all its tensors.

    Errors:
        ConfigError: none, or tensors that differ in it.
    """
    sizes = {leaf.shape[0] for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()}
    if len(sizes) != 1:
        raise ConfigError(
            "GroupFisher takes batches apart into samples, along the first dimension of all tensors; these have sizes "
            f"{sorted(sizes)}: take Taylor, or give batches of single samples"
        )
    return int(sizes.pop())


def samples_of(batch: Any, size: int) -> Iterator[Any]:
    """Batches of one sample each."""
    for number in range(size):
        yield tree_map(lambda x, n=number: x[n : n + 1] if isinstance(x, Tensor) and x.dim() else x, batch)


def check_saving(normalise: Any) -> None:
    """Refuse what scores cannot be divided by."""
    if normalise is not None and normalise not in get_args(Saving):
        raise ConfigError(
            f"normalise is None or a cost that a channel saves, got {normalise!r}; "
            f"{nearest(normalise, get_args(Saving))}"
        )


def saved_per_channel(mutator: Mutator, normalise: Saving) -> dict[str, float]:
    """What the whole model costs more than with the next smaller width of a unit, for each of the channels between.

    Errors:
        CostError: there is no table of what architectures cost.
    """
    inputs = search_of(mutator.model).example_inputs
    try:
        table = CostTable.from_model(mutator, inputs)
    except CostError as error:
        raise CostError(f"what channels save is not known; give normalise=None: {error}") from error
    metric, whole = METRICS[normalise], mutator.space.default
    saved = {}
    for unit in search_of(mutator.model).units:
        narrower = sorted(unit.choices)[-2]
        less = table(whole)[metric] - table({**whole, unit.name: narrower})[metric]
        saved[unit.name] = max(less / (unit.num_channels - narrower), 1e-12)
    return saved
