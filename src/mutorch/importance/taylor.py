"""Channels by what the loss would change without them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.mutators import Mutator
from mutorch.utils import evaluating

from .places import Place, unit_places


@dataclass(frozen=True, slots=True)
class Taylor:
    """How much the loss would change without each channel, to first order (Molchanov et al., arXiv 1906.10771).

    Taking a channel away is setting the weights that read it to zero, which changes the loss of a batch by minus the sum
    of weight times gradient. The score is the root of the mean of its square over batches. A unit that no weight reads
    takes its scales and shifts instead. The model computes in evaluation mode, at full width.

    Attributes:
        batches: what `loss` takes; read from the start at each call.
        loss: takes the model and a batch, returns the scalar loss.
        num_batches: how many to use; more, and so smaller, batches tell more.

    Example:
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), torch.zeros(1, 2))
        >>> scores = Taylor([torch.ones(3, 2)], lambda model, x: model(x).pow(2).mean())(net)
        >>> tuple(scores["0"].shape)
        (4,)
    """

    batches: Iterable[Any]
    loss: Callable[[nn.Module, Any], Tensor]
    num_batches: int | None = 32

    def __call__(self, net: nn.Module) -> dict[str, Tensor]:
        """Unit name to one score a channel."""
        places = {name: gates(found) for name, found in unit_places(net).items()}
        squares = {name: torch.zeros(found[0].num_channels, dtype=torch.float64) for name, found in places.items()}
        mutator, count = Mutator(net), 0
        with mutator.at(mutator.space.default), evaluating(net):
            for batch in islice(self.batches, self.num_batches):
                for name, change in change_of(places, partial(self.loss, net, batch)).items():
                    squares[name] += change.pow(2)
                count += 1
        if not count:
            raise ConfigError("Taylor has no batches: they are empty, or an iterator that can be read only once")
        return {name: (total / count).sqrt() for name, total in squares.items()}


def gates(places: list[Place]) -> list[Place]:
    """The places where setting weights to zero takes a channel away."""
    reading = [place for place in places if place.role == "reads"]
    return reading or [place for place in places if place.role == "scales"] or places


def change_of(places: Mapping[str, list[Place]], loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Unit to what the loss changes, to first order, when these weights of each channel grow by their own size."""
    parameters = {id(place.parameter): place.parameter for found in places.values() for place in found}
    frozen = [parameter for parameter in parameters.values() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(), list(parameters.values()), allow_unused=True)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    by_id = dict(zip(parameters, gradients, strict=True))
    return {name: _change(found, by_id) for name, found in places.items()}


def _change(places: list[Place], gradients: Mapping[int, Tensor | None]) -> Tensor:
    total = torch.zeros(places[0].num_channels, dtype=torch.float64)
    for place in places:
        gradient = gradients[id(place.parameter)]
        if gradient is not None:
            total += place.per_channel((place.parameter.detach() * gradient).double()).cpu()
    return total
