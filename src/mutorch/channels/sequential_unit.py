"""Units of which any number of channels may be kept."""

from __future__ import annotations

import logging
from typing import Any, Literal

from mutorch.errors import ChoiceError, FixedError
from mutorch.mutables import BaseMutableChannel, SequentialMutableChannel
from mutorch.utils import make_divisible

from .unit import MutableChannelUnit

LOGGER = logging.getLogger(__name__)
ChoiceMode = Literal["number", "ratio"]


class SequentialMutableChannelUnit(MutableChannelUnit):
    """Channels of which the first so many are kept, like 11110000 (seed 001).

    An int is a number of channels, a float a share of them. Either is rounded to the nearest multiple of `divisor`; the
    whole unit is always a choice.

    Args:
        num_channels: how many channels there are.
        choice_mode: how choices are spelled: as `'number'` or as `'ratio'`.
        divisor, min_value, min_ratio: see `make_divisible`.
        kwargs: see `MutableChannelUnit`.

    Example:
        >>> unit = SequentialMutableChannelUnit(48, divisor=8)
        >>> unit.current_choice = 20
        >>> unit.current_choice, unit.choices
        (24, [8, 16, 24, 32, 40, 48])
        >>> unit.current_choice = 0.5
        >>> unit.current_choice, unit.config_template()
        (24, {'choice': 24})
    """

    def __init__(
        self,
        num_channels: int,
        choice_mode: ChoiceMode = "number",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_channels, **kwargs)
        self.choice_mode = choice_mode
        self.divisor = divisor
        self.min_value = min_value
        self.min_ratio = min_ratio
        self._hold(SequentialMutableChannel(num_channels, choice_mode))

    def _hold(self, mutable_channel: BaseMutableChannel) -> None:
        if not isinstance(mutable_channel, SequentialMutableChannel):
            raise ChoiceError(
                f"{type(self).__name__} is a unit of a SequentialMutableChannel, not of {mutable_channel!r}"
            )
        self._mutable_channel = mutable_channel
        self.choice_mode = mutable_channel.choice_mode

    @property
    def mutable_channel(self) -> SequentialMutableChannel:
        """Which channels are active."""
        held: SequentialMutableChannel = self._mutable_channel
        return held

    @property
    def current_choice(self) -> int | float:
        """How many channels are kept, as a number or a ratio. Rounded to a choice when set.

        Errors:
            ChoiceError: neither an int from 1 to all channels nor a float above 0 and up to 1.
        """
        return self.mutable_channel.current_choice

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        count = self.valid_count(choice)
        if self._is_fixed and count != self.mutable_channel.activated_channels:
            raise FixedError(f"unit {self.name!r} is fixed to {self.current_choice!r}, got {choice!r}")
        self.assign(count)

    @property
    def choices(self) -> list[Any]:
        """All numbers of channels that `divisor` allows, or their ratios, ascending; after fixing, the one left."""
        if self._is_fixed:
            return [self.current_choice]
        counts = range(self.divisor, self.num_channels + self.divisor, self.divisor)
        return [self.spelled(count) for count in sorted({self.rounded(min(c, self.num_channels)) for c in counts})]

    @property
    def default_choice(self) -> Any:
        """The largest."""
        return self.choices[-1]

    @property
    def max_choice(self) -> Any:
        """The largest."""
        return self.choices[-1]

    @property
    def min_choice(self) -> Any:
        """The smallest."""
        return self.choices[0]

    def allows(self, choice: Any) -> bool:
        return self.mutable_channel.allows(choice)

    def rounded(self, count: float) -> int:
        """The number of channels of a unit like this that is nearest to `count`."""
        if count == self.num_channels:
            return self.num_channels
        least = max(self.min_value, self.divisor)
        return min(make_divisible(count, self.divisor, least, self.min_ratio), self.num_channels)

    def spelled(self, count: int) -> int | float:
        """A number of channels as a choice."""
        return count if self.choice_mode == "number" else count / self.num_channels

    def valid_count(self, choice: Any) -> int:
        """The number of channels that a choice means, rounded.

        Errors:
            ChoiceError: out of range.
        """
        count = self.mutable_channel._count_of(choice)
        rounded = self.rounded(count)
        if rounded != count:
            LOGGER.info(
                "unit %s keeps %d channels, not %d, which %d does not divide", self.name, rounded, count, self.divisor
            )
        return rounded

    def init_args(self) -> dict[str, Any]:
        return {
            **super().init_args(),
            "choice_mode": self.choice_mode,
            "divisor": self.divisor,
            "min_value": self.min_value,
            "min_ratio": self.min_ratio,
        }
