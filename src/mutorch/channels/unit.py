"""Channels that are kept or removed together, as one decision."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from mutorch.errors import ChoiceError
from mutorch.mutables import BaseMutable, BaseMutableChannel, DumpChosen
from mutorch.ops.extent import Extent


class MutableChannelUnit(BaseMutable[Any, Any]):
    """Channels of several modules that must be kept or removed together (seed 001).

    A unit holds a channel mutable, which says which channels are active, and is the one that decides; `name` is that of the decision.

    Args:
        num_channels: how many channels there are.
        kwargs: `alias` and `init_cfg`; see `BaseMutable`.
    """

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_channels = num_channels
        self.name = f"unitx_{num_channels}"
        self.extents: list[Extent] = []

    @property
    def mutable_prefix(self) -> str:
        """`'channel'`, the kind of decision."""
        return "channel"

    @property
    @abstractmethod
    def mutable_channel(self) -> BaseMutableChannel:
        """Which channels are active."""

    @property
    def current_choice(self) -> Any:
        """The choice of the channel mutable."""
        return self.mutable_channel.current_choice

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        self.mutable_channel.current_choice = choice
        self.refresh()

    def assign(self, choice: Any) -> None:
        self.mutable_channel.assign(choice)
        if self.extents:
            self.refresh()

    def refresh(self) -> None:
        """Bring the masks that compiled graphs read up to date."""
        for extent in self.extents:
            extent.refresh()

    def fix_chosen(self, chosen: Any = None) -> None:
        """Make `chosen`, or the current choice, final.

        Errors:
            FixedError: fixed before.
            ChoiceError: not a choice; nothing is changed.
        """
        self._check_not_fixed()
        if chosen is not None and not self.allows(chosen):
            raise ChoiceError(f"unit {self.alias!r} has no choice {chosen!r}; choices: {list(self.choices)}")
        self.mutable_channel.fix_chosen(chosen)
        self.is_fixed = True
        self.refresh()

    def dump_chosen(self) -> DumpChosen:
        """The current choice, with the number of all channels as meta."""
        return self.mutable_channel.dump_chosen()
