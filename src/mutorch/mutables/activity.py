"""Which channels are active: a count where they are the first ones, else their positions."""

from collections.abc import Iterable

import torch
from torch import Tensor

Active = int | Tensor
"""`k` where the first `k` channels are active, else the positions of the active ones: int64, ascending, on the CPU."""


def from_index(index: Tensor) -> Active:
    """What ascending positions say, as a count where they allow it."""
    number = index.numel()
    return number if number == 0 or int(index[-1]) == number - 1 else index


def from_mask(mask: Tensor) -> Active:
    """What a mask says.

    Example:
        >>> from_mask(torch.tensor([1.0, 1.0, 0.0])), from_mask(torch.tensor([False, True]))
        (2, tensor([1]))
    """
    return from_index(mask.detach().cpu().nonzero().flatten())


def as_index(active: Active) -> Tensor:
    """The positions."""
    return torch.arange(active, device="cpu") if isinstance(active, int) else active


def as_mask(active: Active, length: int) -> Tensor:
    """A bool mask of `length` channels, on the CPU."""
    if isinstance(active, int):
        return torch.arange(length, device="cpu") < active
    return torch.zeros(length, dtype=torch.bool, device="cpu").index_fill_(0, active, True)


def count(active: Active) -> int:
    """How many are active."""
    return active if isinstance(active, int) else active.numel()


def repeated(active: Active, times: int) -> Active:
    """What is active when every channel becomes `times` channels that stand side by side."""
    if isinstance(active, int):
        return active * times
    return (active[:, None] * times + torch.arange(times, device="cpu")).flatten()


def joined(parts: Iterable[tuple[int, Active]]) -> Active:
    """What is active in several runs of channels, each given by its length, one after the other.

    Example:
        >>> joined([(4, 4), (4, 2)]), joined([(4, 2), (4, 2)])
        (6, tensor([0, 1, 4, 5]))
    """
    start, leading, indices = 0, 0, []
    for length, active in parts:
        if leading == start and isinstance(active, int):
            leading += active
        indices.append((start, active))
        start += length
    if leading == sum(count(active) for _, active in indices):
        return leading
    return torch.cat([as_index(active) + offset for offset, active in indices])
