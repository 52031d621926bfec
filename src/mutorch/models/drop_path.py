"""Stochastic depth."""

import torch
from torch import Tensor, nn

from mutorch.errors import ChoiceError


class DropPath(nn.Module):
    """Zeroes whole samples with probability `rate` while training, and scales the others up (arXiv 1603.09382).

    `rate` may change at any time. Draws from torch's generator of the device, as `nn.Dropout` does.

    Errors:
        TypeError: a rate that is no float.
        ChoiceError: a rate outside 0 <= rate < 1.

    Example:
        >>> DropPath(0.2).eval()(torch.ones(2, 3)).sum()
        tensor(6.)
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    @property
    def rate(self) -> float:
        """The probability that a sample is dropped."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        if not isinstance(rate, float):
            raise TypeError(f"drop_path_rate must be a float, got {rate!r}")
        if not 0 <= rate < 1:
            raise ChoiceError(f"drop_path_rate must be at least 0 and below 1, got {rate}")
        self._rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self._rate == 0:
            return x
        kept = torch.empty(x.shape[0], *[1] * (x.ndim - 1), dtype=x.dtype, device=x.device)
        return x * kept.bernoulli_(1 - self._rate) / (1 - self._rate)

    def extra_repr(self) -> str:
        return f"rate={self._rate}"


def set_drop_path_rate_(model: nn.Module, rate: float) -> None:
    """Give every `DropPath` of `model` this rate, as schedules do once an epoch.

    Example:
        >>> model = nn.Sequential(nn.ReLU(), DropPath())
        >>> set_drop_path_rate_(model, 0.2)
        >>> model[1].rate
        0.2
    """
    for module in model.modules():
        if isinstance(module, DropPath):
            module.rate = rate
