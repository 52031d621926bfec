"""Channels in a random order: what every ranking has to beat."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mutorch.space import random_at

from .places import search_of


@dataclass(frozen=True, slots=True)
class Random:
    """Random scores between 0 and 1; the same for the same seed, unit name and number of channels.

    Example:
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)), torch.zeros(1, 2))
        >>> bool((Random(0)(net)["0"] == Random(0)(net)["0"]).all())
        True
    """

    seed: int = 0

    def __call__(self, net: nn.Module) -> dict[str, Tensor]:
        """Unit name to one score a channel."""
        found = {}
        for unit in search_of(net).units:
            generator = random_at(self.seed, "importance", unit.name)
            found[unit.name] = torch.tensor([generator.random() for _ in range(unit.num_channels)], dtype=torch.float64)
        return found
