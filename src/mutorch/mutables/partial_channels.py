"""Computing a part of the channels and letting the rest pass: what makes mixtures of many candidates affordable."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mutorch.errors import ChoiceError


class PartialChannels(nn.Module):
    """Computes the first of `partial` equal parts of the channels, and lets the rest pass (PC-DARTS, arXiv 1907.05737).

    An ordinary module: it makes no choices. It is what an exported model has where a `DiffMutableOP(partial=...)` was.

    Example:
        >>> block = PartialChannels(nn.ReLU(), 2)
        >>> block(torch.tensor([[-1.0, -2.0, -3.0, -4.0]]))
        tensor([[ 0., -3.,  0., -4.]])
    """

    def __init__(self, inner: nn.Module, partial: int) -> None:
        super().__init__()
        self.inner = inner
        self.partial = partial

    def forward(self, x: Tensor) -> Tensor:
        return partial_channels(self.inner, x, self.partial)


def partial_channels(compute: Callable[[Tensor], Tensor], x: Tensor, partial: int) -> Tensor:
    """What `compute` makes of the first part of the channels, beside the rest, shuffled so that the next block sees others.

    Where `compute` halves the height and width of images, the rest is max-pooled, as in the paper.

    Args:
        x: shape (batch, channels, ...); a multiple of `partial` channels.

    Errors:
        ChoiceError: channels that cannot be divided.
    """
    if x.shape[1] % partial:
        raise ChoiceError(f"{x.shape[1]} channels have no {partial} equal parts; choose partial by what divides them")
    size = x.shape[1] // partial
    computed, rest = compute(x[:, :size]), x[:, size:]
    if computed.ndim == 4 and computed.shape[2:] != rest.shape[2:]:
        rest = functional.max_pool2d(rest, 2, 2)
    joined = torch.cat([computed, rest], dim=1)
    shuffled = joined.reshape(len(joined), partial, -1, *joined.shape[2:]).transpose(1, 2)
    return shuffled.reshape(joined.shape)
