"""Channels by the size of their weights."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from .places import Place, unit_places


@dataclass(frozen=True, slots=True)
class Magnitude:
    """The norm of all weights of a channel; `L1` and `L2` are made of it.

    Weights that make the channel always count: with a channel that several layers share, those of all of them.

    Attributes:
        reads: whether weights that read the channel count too.
        scales: whether scales of norm layers and biases count too.
        per_tensor: divide what a channel has in a tensor by the mean of all channels there, so that every tensor has the
            same say, whatever its size; a channel's score is then the mean over tensors.
    """

    reads: bool = False
    scales: bool = False
    per_tensor: bool = False
    power: ClassVar[Literal[1, 2]] = 2

    def __call__(self, net: nn.Module) -> dict[str, Tensor]:
        """Unit name to one score a channel."""
        return {name: self._scores(places) for name, places in unit_places(net).items()}

    def _scores(self, places: list[Place]) -> Tensor:
        counted = [place for place in places if self._counts(place)] or places
        sums = [place.per_channel(place.parameter.detach().abs().double().pow(self.power)).cpu() for place in counted]
        if not self.per_tensor:
            return torch.stack(sums).sum(dim=0).pow(1 / self.power)
        norms = [total.pow(1 / self.power) for total in sums]
        return torch.stack([norm / norm.mean().clamp_min(1e-12) for norm in norms]).mean(dim=0)

    def _counts(self, place: Place) -> bool:
        return (
            place.role == "makes" or (place.role == "reads" and self.reads) or (place.role == "scales" and self.scales)
        )


class L1(Magnitude):
    """The sum of the absolute weights of each channel (Li et al., arXiv 1608.08710), over every layer that makes it.

    Example:
        >>> from mutorch.channels import searchable
        >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
        >>> with torch.no_grad():
        ...     _ = model[0].weight.copy_(torch.tensor([[0.5], [-2.0]]))
        >>> L1()(searchable(model, torch.zeros(1, 1)))["0"].tolist()
        [0.5, 2.0]
    """

    power = 1


class L2(Magnitude):
    """The Euclidean norm of the weights of each channel, over every layer that makes it.

    Example:
        >>> from mutorch.channels import searchable
        >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> {name: tuple(scores.shape) for name, scores in L2(reads=True)(searchable(model, torch.zeros(1, 2))).items()}
        {'0': (4,)}
    """

    power = 2
