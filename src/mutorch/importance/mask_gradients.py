"""The gradient of a mask of ones over channels, sample by sample, from one backward of a batch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mutorch.ops.dynamic import STATE, DynamicState
from mutorch.ops.extent import Extent
from mutorch.utils import removing

from .places import Place, unit_places


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that multiplies the channels of a unit with weights, and where they are in its input.

    Attributes:
        dim: the dimension of the input that has the channels, counted from the end of one sample.
        extent: what of that dimension is active; `None` where all of it always is.
    """

    module: nn.Module
    place: Place
    dim: int
    extent: Extent | None

    def per_channel(self, values: Tensor) -> Tensor:
        """From a value for each element of the input to the sum for each sample and channel."""
        rows = values.movedim(self.dim, 1).reshape(values.shape[0], values.shape[self.dim], -1).sum(dim=2)
        selection = None if self.extent is None or rows.shape[1] == self.place.where.size else self.extent.selection()
        if selection is not None:
            whole = rows.new_zeros(len(rows), self.place.where.size)
            index = torch.arange(selection) if isinstance(selection, int) else selection
            rows = whole.index_copy_(1, index.to(rows.device), rows)
        return self.place.per_column(rows)


class MaskGradients:
    """What the loss of each sample would change, to first order, if a channel were scaled where it is read.

    The channels of a unit are multiplied by a mask of ones where convolutions and linear layers read them; the gradient of
    a sample's loss by the mask is the sum of activation times gradient over all places and over all of these layers. It
    is taken while the model runs and its loss is differentiated as usual.

    Args:
        net: a searchable model, at any architecture.

    Attributes:
        readers: unit to the layers that read it.
        unread: units that something else reads too, or nothing: attention scores, grouped convolutions, parameters of
            modules that are no such layers. Of these, nothing is taken.

    Example:
        >>> from mutorch.channels import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), torch.zeros(1, 2))
        >>> gradients = MaskGradients(net)
        >>> with gradients.watching():
        ...     net(torch.ones(3, 2)).mean().backward()
        ...     {name: tuple(found.shape) for name, found in gradients.take(num_samples=3).items()}
        {'0': (3, 4)}
    """

    def __init__(self, net: nn.Module) -> None:
        modules = dict(net.named_modules())
        self.readers: dict[str, list[Reader]] = {}
        self.unread: list[str] = []
        for name, places in unit_places(net).items():
            reading = [(place, _input_dim(modules[place.where.module], place)) for place in places]
            found = [
                Reader(modules[place.where.module], place, dim, _extent(modules[place.where.module], place))
                for place, dim in reading
                if place.role == "reads" and dim is not None
            ]
            if found and len(found) == sum(place.role == "reads" for place in places):
                self.readers[name] = found
            else:
                self.unread.append(name)
        self._read: dict[int, list[Tensor]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Forwards inside are kept, until `take`, with their graphs."""
        modules = {id(reader.module): reader.module for readers in self.readers.values() for reader in readers}
        handles = [module.register_forward_pre_hook(partial(self._on_forward, key)) for key, module in modules.items()]
        try:
            with removing(handles):
                yield
        finally:
            self._read.clear()

    def _on_forward(self, key: int, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not torch.is_grad_enabled() or not inputs or not isinstance(inputs[0], Tensor):
            return None
        # A tensor of its own: what else reads the activation has another gradient.
        given = inputs[0]
        own = given.view_as(given) if given.requires_grad else given.detach().requires_grad_()
        own.retain_grad()
        self._read.setdefault(key, []).append(own)
        return own, *inputs[1:]

    def differentiate(self, loss: Tensor) -> None:
        """Take the gradients of a loss without touching those of the parameters."""
        read = [own for each in self._read.values() for own in each]
        if read and loss.requires_grad:
            for own, gradient in zip(read, torch.autograd.grad(loss, read, allow_unused=True), strict=True):
                own.grad = gradient

    def take(self, num_samples: int) -> dict[str, Tensor]:
        """Unit to the gradients (samples, channels) since the last `take`; channels that are not active have zeros.

        Units with a layer that did not run, or that sees something else than whole numbers of rows a sample, are left out.
        """
        read, self._read = self._read, {}
        found: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, readers in self.readers.items():
                each = [
                    reader.per_channel(_product(own, reader.dim))
                    for reader in readers
                    for own in read.get(id(reader.module), ())
                ]
                ran = all(id(reader.module) in read for reader in readers)
                if ran and all(len(rows) and len(rows) % num_samples == 0 for rows in each):
                    folded = [rows.view(num_samples, -1, rows.shape[1]).sum(dim=1) for rows in each]
                    found[name] = torch.stack(folded).sum(dim=0)
        return found


def _product(own: Tensor, dim: int) -> Tensor:
    """Activation times gradient, with the samples first."""
    product = torch.zeros_like(own) if own.grad is None else own.detach() * own.grad
    return product[None] if product.dim() < 2 and dim == -1 else product


def _input_dim(module: nn.Module, place: Place) -> int | None:
    """Where a layer's input has the channels that a dimension of its weight reads; `None` if it is no such layer."""
    if place.where.name != "weight":
        return None
    if isinstance(module, _ConvNd):
        kernel = len(module.kernel_size)
        return -kernel - 1 if module.groups == 1 else None
    return -1 if isinstance(module, nn.Linear) or hasattr(module, "nf") else None


def _extent(module: nn.Module, place: Place) -> Extent | None:
    state = vars(module).get(STATE)
    dims: Mapping[int, Extent] = dict(state.tensors.get("weight", ())) if isinstance(state, DynamicState) else {}
    return dims.get(place.where.dim)
