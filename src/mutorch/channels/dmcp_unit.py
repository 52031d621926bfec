"""Units whose numbers of channels have probabilities."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mutorch.ops import DMCPBatchNorm2d

from .sequential_unit import ChoiceMode, SequentialMutableChannelUnit


class DMCPChannelUnit(SequentialMutableChannelUnit):
    """Channels of DMCP (Guo et al. 2020): their 2d batch norms become `DMCPBatchNorm2d` (seed 001).

    Its channel mutable has an attribute `activated_tensor_channels`: the expected number of channels as a tensor, which
    gradients go through; `None` until something computes it.

    Args:
        num_channels, choice_mode, divisor, min_value, min_ratio, kwargs: see `SequentialMutableChannelUnit`.
    """

    special_ops = {nn.BatchNorm2d: DMCPBatchNorm2d}

    def __init__(
        self,
        num_channels: int,
        choice_mode: ChoiceMode = "number",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_channels, choice_mode, divisor, min_value, min_ratio, **kwargs)
        expected: Tensor | None = None
        self.mutable_channel.activated_tensor_channels = expected  # type: ignore[assignment]
