"""Units whose numbers of channels have probabilities."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mutorch.errors import ChoiceError
from mutorch.ops import DMCPBatchNorm2d

from .sequential_unit import ChoiceMode, SequentialMutableChannelUnit


class DMCPChannelUnit(SequentialMutableChannelUnit):
    """Channels of DMCP (Guo et al. 2020): their 2d batch norms become `DMCPBatchNorm2d` (seed 001).

    Its channel mutable has an attribute `activated_tensor_channels`: the expected number of channels as a tensor, which
    gradients go through; `None` until something computes it.

    Args:
        num_channels, choice_mode, divisor, min_value, min_ratio, kwargs: see `SequentialMutableChannelUnit`.

    Attributes:
        groups: size of a group of channels, number of groups, channels that always stay; `None` until `set_groups`.
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
        self.groups: tuple[int, int, int] | None = None
        expected: Tensor | None = None
        self.mutable_channel.activated_tensor_channels = expected  # type: ignore[assignment]

    def set_groups(self, size: int, number: int, least: int) -> None:
        """Let the unit have only these choices: `least` channels, and one group of `size` after the other.

        Errors:
            ChoiceError: not all channels together.

        Example:
            >>> unit = DMCPChannelUnit(10)
            >>> unit.set_groups(2, 3, 4)
            >>> unit.choices
            [4, 6, 8, 10]
        """
        if size * number + least != self.num_channels or min(size, number) < 0 or least < 1:
            raise ChoiceError(
                f"unit {self.name!r} has {self.num_channels} channels, got {number} groups of {size} after {least}"
            )
        self.groups = size, number, least

    @property
    def choices(self) -> list[Any]:
        """As in every such unit, or what the groups allow."""
        if self.groups is None or self._is_fixed:
            return super().choices
        size, number, least = self.groups
        counts = [least + size * kept for kept in range(number + 1)] if size else [self.num_channels]
        return [self.spelled(count) for count in counts]
