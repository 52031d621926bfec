"""Units whose choices are a list of widths."""

from collections.abc import Sequence
from typing import Any, Literal

from mutorch.mutables import OneShotMutableChannel

from .unit import MutableChannelUnit


class OneShotMutableChannelUnit(MutableChannelUnit):
    """TEMP."""

    def __init__(
        self,
        num_channels: int,
        candidate_choices: Sequence[int | float] = (0.5, 1.0),
        choice_mode: Literal["number", "ratio"] = "ratio",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_channels, **kwargs)
        self._mutable_channel = OneShotMutableChannel(num_channels, list(candidate_choices), choice_mode)

    @property
    def mutable_channel(self) -> OneShotMutableChannel:
        return self._mutable_channel

    @property
    def choices(self) -> list[Any]:
        return self._mutable_channel.choices

    @property
    def default_choice(self) -> Any:
        return self._mutable_channel.default_choice
