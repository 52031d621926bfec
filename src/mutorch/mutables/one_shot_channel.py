"""Channels of which the first so many are active, from a list of candidates."""

from collections.abc import Sequence
from typing import Any, Literal

from mutorch.errors import ChoiceError, nearest

from .sequential_channel import SequentialMutableChannel, is_number, is_ratio


class OneShotMutableChannel(SequentialMutableChannel):
    """The first `k` of the channels, for some `k` (seed 001). Begins at the largest.

    Args:
        num_channels: how many channels there are.
        candidate_choices: ints if `choice_mode` is `'number'`, floats if it is `'ratio'`; all channels if empty. A
            sorted copy is kept.
        choice_mode, kwargs: see `SequentialMutableChannel`.

    Attributes:
        candidate_choices: the candidates, ascending.

    Errors:
        ChoiceError: a candidate out of range, of the other type, or that keeps as many channels as another one.

    Example:
        >>> channels = OneShotMutableChannel(48, [32, 16, 48], alias="width")
        >>> channels.current_choice, channels.candidate_choices
        (48, [16, 32, 48])
        >>> channels.current_choice = 24
        Traceback (most recent call last):
        ...
        mutorch.errors.ChoiceError: OneShotMutableChannel 'width' of 48 channels has no choice 24; ... allowed: 16, 32, 48
    """

    def __init__(
        self,
        num_channels: int,
        candidate_choices: Sequence[int | float] = (),
        choice_mode: Literal["number", "ratio"] = "number",
        **kwargs: Any,
    ) -> None:
        super().__init__(num_channels, choice_mode, **kwargs)
        self._candidate_of: dict[int, int | float] = {}
        for candidate in list(candidate_choices) or [super()._spelled(num_channels)]:
            self._add(candidate)
        self.candidate_choices = sorted(self._candidate_of.values())
        self._count_by_ratio = {} if self.is_num_mode else {ratio: k for k, ratio in self._candidate_of.items()}
        self._count = max(self._candidate_of)

    def _add(self, candidate: Any) -> None:
        if not (is_number if self.is_num_mode else is_ratio)(candidate):
            kinds = ("ints", "ratio", "floats") if self.is_num_mode else ("floats", "number", "ints")
            raise ChoiceError(
                f"candidates of {self._describe()} are {kinds[0]} in choice_mode {self.choice_mode!r}, got {candidate!r}; "
                f"choice_mode {kinds[1]!r} takes {kinds[2]}"
            )
        count = super()._count_of(candidate)
        if count in self._candidate_of:
            raise ChoiceError(
                f"candidates {self._candidate_of[count]!r} and {candidate!r} of {self._describe()} keep {count} channels both"
            )
        self._candidate_of[count] = count if self.is_num_mode else float(candidate)

    def _all_choices(self) -> list[Any]:
        return self.candidate_choices

    def _spelled(self, count: int) -> int | float:
        return self._candidate_of[count]  # as in the list: 0.33 of 10 channels keeps 3, and reads 0.33

    def _count_of(self, choice: Any) -> int:
        # The type says what is meant: 1 is one channel, 1.0 is all. Dumps hold the number of channels in either mode.
        if type(choice) is float or is_ratio(choice):  # the first is quick
            if choice in self._count_by_ratio:
                return self._count_by_ratio[choice]
        elif is_number(choice) and choice in self._candidate_of:
            return int(choice)
        raise ChoiceError(f"{self._describe()} has no choice {choice!r}; {nearest(choice, self.candidate_choices)}")
