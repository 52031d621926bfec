"""Units of slimmable networks: a norm for each width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from mutorch.mutables import MutableChannelContainer, OneShotMutableChannel
from mutorch.ops import SwitchableBatchNorm2d

from .one_shot_unit import OneShotMutableChannelUnit
from .prepare import source_of
from .sequential_unit import ChoiceMode


class SlimmableChannelUnit(OneShotMutableChannelUnit):
    """A `OneShotMutableChannelUnit` whose 2d batch norms have weights and statistics for each width (seed 001).

    Args:
        candidate_choices: the widths; all channels if empty.
        num_channels, choice_mode, divisor, min_value, min_ratio, kwargs: see `OneShotMutableChannelUnit`.
    """

    special_ops = {nn.BatchNorm2d: SwitchableBatchNorm2d}

    def __init__(
        self,
        num_channels: int,
        candidate_choices: Sequence[int | float] = (),
        choice_mode: ChoiceMode = "number",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_channels, candidate_choices, choice_mode, divisor, min_value, min_ratio, **kwargs)

    def prepare_for_pruning(self, model: nn.Module) -> None:
        super().prepare_for_pruning(model)
        self.alter_candidates_of_switchbn(self.candidate_choices)

    def alter_candidates_of_switchbn(self, candidates: Sequence[int | float]) -> None:
        """Give the norms that have none yet the norms of these widths.

        A norm over the channels of several units, as after a concatenation, gets the sums of their first candidates, of
        their second ones and so on, once all these units are prepared.
        """
        counts = [self.mutable_channel._count_of(candidate) for candidate in candidates]
        for channel in self.channels:
            norm = channel.module
            if not isinstance(norm, SwitchableBatchNorm2d) or len(norm.candidate_bn):
                continue
            if norm.whole_size("num_features") == self.num_channels:
                norm.init_candidates(counts)
            else:
                norm.init_candidates(_sums(norm.get_mutable_attr("num_features"), norm.whole_size("num_features")))


def _sums(container: Any, size: int) -> list[int]:
    if not isinstance(container, MutableChannelContainer):
        return []
    parts: list[list[int]] = []
    covered = 0
    for (start, end), member in container.registered.items():
        mutable = source_of(member)
        if not isinstance(mutable, OneShotMutableChannel):
            return []
        times = (end - start) // mutable.num_channels
        parts.append([mutable._count_of(choice) * times for choice in mutable.candidate_choices])
        covered += end - start
    if covered != size or len({len(part) for part in parts}) != 1:
        return []
    return [sum(counts) for counts in zip(*parts, strict=True)]
