"""The order of a unit's channels."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mutorch.errors import SpaceError, nearest
from mutorch.mutables import SequentialMutableChannel

from .places import search_of

Importance = Callable[[nn.Module], Mapping[str, Tensor]]
"""A ranking: takes a searchable model, gives for each unit, by name, one score a channel; higher is kept longer."""


def rank_(net: nn.Module, importance: Importance) -> dict[str, Tensor]:
    """Let every unit keep its highest scores first: narrower then means without the least important. In place.

    What the model computes at full width stays the same, and so do its weights: only the order in which channels go is
    another. Equal scores keep their order.

    Returns:
        The scores, for the units by name, in float64 on the CPU.

    Errors:
        SpaceError: a model that is not searchable, units that the ranking left out or made up, or scores of the wrong
            length or that are no numbers.

    Example:
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), torch.zeros(1, 2))
        >>> scores = rank_(net, lambda net: {"0": torch.tensor([0.1, 3.0, 0.5])})
        >>> scores["0"].argsort(descending=True).tolist()
        [1, 2, 0]
    """
    search = search_of(net)
    found = importance(net)
    names = [unit.name for unit in search.units]
    for name in found:
        if name not in names:
            raise SpaceError(f"the ranking scored {name!r}, which is no unit; {nearest(name, names)}")
    checked = {unit.name: _checked(unit.name, found.get(unit.name), unit.num_channels) for unit in search.units}
    for unit in search.units:
        order = torch.argsort(checked[unit.name], descending=True, stable=True)
        channel = unit.mutable_channel
        if not isinstance(channel, SequentialMutableChannel):
            raise SpaceError(f"unit {unit.name!r} has a {type(channel).__name__}, whose channels go in no order")
        channel.set_order(order.tolist())
        unit.refresh()
    return checked


def _checked(name: str, scores: Tensor | None, num_channels: int) -> Tensor:
    if scores is None:
        raise SpaceError(f"the ranking has no scores for the unit {name!r}")
    scores = torch.as_tensor(scores).detach().double().cpu()
    if scores.shape != (num_channels,):
        raise SpaceError(f"unit {name!r} has {num_channels} channels, got scores of shape {tuple(scores.shape)}")
    if not scores.isfinite().all():
        bad = int((~scores.isfinite()).nonzero()[0])
        raise SpaceError(f"the score of channel {bad} of unit {name!r} is {scores[bad].item()}")
    return scores
