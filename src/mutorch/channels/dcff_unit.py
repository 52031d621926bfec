"""Units whose removed filters are fused into those that stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mutorch.ops import FuseConv2d

from .sequential_unit import ChoiceMode, SequentialMutableChannelUnit


class DCFFChannelUnit(SequentialMutableChannelUnit):
    """Channels of DCFF (Lin et al. 2021): the convolutions that make them become `FuseConv2d` (seed 001).

    Args:
        candidate_choices: accepted, as the documents have it, and without meaning: any number may be kept.
        num_channels, choice_mode, divisor, min_value, min_ratio, kwargs: see `SequentialMutableChannelUnit`.
    """

    special_ops = {nn.Conv2d: FuseConv2d}

    def __init__(
        self,
        num_channels: int,
        candidate_choices: Sequence[int | float] = (1.0,),
        choice_mode: ChoiceMode = "ratio",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_channels, choice_mode, divisor, min_value, min_ratio, **kwargs)
        self.candidate_choices = list(candidate_choices)

    def init_args(self) -> dict[str, Any]:
        return {**super().init_args(), "candidate_choices": self.candidate_choices}
