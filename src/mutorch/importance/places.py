"""Where the channels of a unit are in the tensors of a model, and what those tensors do with them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from mutorch.channels.build import SEARCH, Search
from mutorch.channels.structure import ChannelGroup, Structure, TensorDim
from mutorch.errors import SpaceError

Role = Literal["makes", "reads", "scales"]
"""What a parameter does with the channels along one of its dimensions: makes them (the outputs of a convolution), reads
them (its inputs), or scales or shifts each by itself (a norm, a bias)."""


def search_of(net: nn.Module) -> Search:
    """What `searchable` found in a model.

    Errors:
        SpaceError: a model that is not searchable, or of which nothing is.
    """
    search = vars(net).get(SEARCH)
    if not isinstance(search, Search):
        raise SpaceError(
            f"{type(net).__name__} has no channels to rank; make it searchable first: searchable(model, x)"
        )
    return search


@dataclass(frozen=True, slots=True)
class Place:
    """One dimension of one parameter in which a unit has channels.

    Attributes:
        where: the parameter and its dimension.
        role: what the parameter does with the channels.
        parameter: whole, whatever is active now.
    """

    where: TensorDim
    role: Role
    parameter: Tensor
    num_channels: int
    _positions: tuple[tuple[Tensor, Tensor], ...]

    def per_channel(self, values: Tensor) -> Tensor:
        """The sums of `values`, which is shaped like the parameter, over all that belongs to each channel."""
        along = values.transpose(0, self.where.dim).reshape(self.where.size, -1).sum(dim=1)
        return self.per_column(along[None])[0]

    def per_column(self, rows: Tensor) -> Tensor:
        """From rows of one value a position along the dimension to rows of one sum a channel."""
        total = torch.zeros(len(rows), self.num_channels, dtype=rows.dtype, device=rows.device)
        for positions, channels in self._positions:
            total.index_add_(1, channels.to(rows.device), rows[:, positions.to(rows.device)])
        return total


def unit_places(net: nn.Module) -> dict[str, list[Place]]:
    """The name of each unit, and the parameters that its channels are in.

    Errors:
        SpaceError: see `search_of`.

    Example:
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 2))
        >>> {name: [(p.where.path, p.role) for p in places] for name, places in unit_places(net).items()}
        {'0': [('0.weight', 'makes'), ('0.bias', 'scales'), ('2.weight', 'reads')]}
    """
    search = search_of(net)
    parameters = dict(net.named_parameters())
    modules = dict(net.named_modules())
    found: dict[str, list[Place]] = {}
    for number, unit in search.group_units.items():
        group = search.structure.groups[number]
        found[unit.name] = [
            Place(where, role_of(modules[where.module], where), parameter, group.num_channels, positions)
            for where, positions in _positions(search.structure, number, group)
            if (parameter := parameters.get(where.path)) is not None
        ]
    return found


def _positions(
    structure: Structure, number: int, group: ChannelGroup
) -> Iterator[tuple[TensorDim, tuple[tuple[Tensor, Tensor], ...]]]:
    """For each place, where along the dimension something of the group is, and which channel it is."""
    for where in dict.fromkeys(where for where, _ in group.places):
        found = []
        for component in structure.dims[where]:
            here = structure.group_of[component] == number
            if here.any():
                found.append(
                    (torch.from_numpy(here.nonzero()[0]), torch.from_numpy(structure.index_of[component[here]]))
                )
        yield where, tuple(found)


def role_of(module: nn.Module, where: TensorDim) -> Role:
    """What a parameter does with the channels along a dimension, by the conventions of torch's layers.

    A module of another kind that has a `weight` is taken to multiply as `nn.Linear` does, outputs first. All that has one
    dimension, and tensors that are no weights (tokens, positions), are taken as they are for each channel.
    """
    tensor = module._parameters[where.name]
    if tensor is None or tensor.dim() < 2:
        return "scales"
    if (
        "weight" not in where.name
    ):  # a factor of each channel, such as LayerScale's, or something added, such as a token
        return "scales" if tensor.numel() == where.size else "makes"
    made = (
        1 if isinstance(module, _ConvTransposeNd | nn.Embedding) or hasattr(module, "nf") else 0
    )  # nf: GPT-2's Conv1D
    return "makes" if where.dim == made else "reads"
