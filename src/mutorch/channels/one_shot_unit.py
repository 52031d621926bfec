"""Units whose choices are a list of widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mutorch.errors import ChoiceError, nearest
from mutorch.mutables import BaseMutableChannel, OneShotMutableChannel
from mutorch.mutables.sequential_channel import is_number, is_ratio

from .sequential_unit import ChoiceMode, SequentialMutableChannelUnit


class OneShotMutableChannelUnit(SequentialMutableChannelUnit):
    """Channels of which the first so many are kept, for some numbers (seed 001). Begins with the largest.

    Args:
        num_channels: how many channels there are.
        candidate_choices: ints in `choice_mode` `'number'`, floats in `'ratio'`; rounded as the choices of a
            `SequentialMutableChannelUnit` are, and each kept once. All channels if empty.
        choice_mode, divisor, min_value, min_ratio, kwargs: see `SequentialMutableChannelUnit`.

    Attributes:
        candidate_choices: the candidates, ascending.

    Errors:
        ChoiceError: a candidate out of range or of the other type.

    Example:
        >>> OneShotMutableChannelUnit(48, [20, 30, 40], choice_mode="number", divisor=8).choices
        [24, 32, 40]
    """

    def __init__(
        self,
        num_channels: int,
        candidate_choices: Sequence[int | float] = (0.5, 1.0),
        choice_mode: ChoiceMode = "ratio",
        divisor: int = 1,
        min_value: int = 1,
        min_ratio: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_channels, choice_mode, divisor, min_value, min_ratio, **kwargs)
        counts = sorted({self._count_of(candidate) for candidate in candidate_choices} or {num_channels})
        candidates = [self.spelled(count) for count in counts]
        self._hold(OneShotMutableChannel(num_channels, candidates, choice_mode))

    def _count_of(self, candidate: Any) -> int:
        if not (is_number if self.choice_mode == "number" else is_ratio)(candidate):
            kind = "ints" if self.choice_mode == "number" else "floats"
            raise ChoiceError(f"candidates in choice_mode {self.choice_mode!r} are {kind}, got {candidate!r}")
        return self.valid_count(candidate)

    @classmethod
    def init_from_mutable_channel(cls, mutable_channel: BaseMutableChannel) -> Any:
        """A unit around a channel mutable that exists already, with its candidates."""
        choices = list(mutable_channel.choices)
        mode: Any = getattr(mutable_channel, "choice_mode", "number")
        unit = cls(mutable_channel.num_channels, candidate_choices=choices, choice_mode=mode)
        unit._hold(mutable_channel)
        return unit

    def prepare_for_pruning(self, model: Any) -> None:
        if not self.unit_predefined:
            super().prepare_for_pruning(model)
        self.current_choice = self.max_choice

    @property
    def candidate_choices(self) -> list[Any]:
        """The candidates, ascending."""
        return list(getattr(self.mutable_channel, "candidate_choices", self.mutable_channel.choices))

    @property
    def current_choice(self) -> Any:
        """One of the candidates.

        Errors:
            ChoiceError: no candidate (also `AssertionError`).
        """
        return self.mutable_channel.current_choice

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        if not self.mutable_channel.allows(choice):
            raise ChoiceError(f"unit {self.name!r} has no choice {choice!r}; {nearest(choice, self.candidate_choices)}")
        self.mutable_channel.current_choice = choice
        self.refresh()

    @property
    def choices(self) -> list[Any]:
        """The candidates; after fixing, the one left."""
        return self.mutable_channel.choices

    def init_args(self) -> dict[str, Any]:
        return {**super().init_args(), "candidate_choices": self.candidate_choices}
