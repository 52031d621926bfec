"""The base of mutables whose choice is a set of channels."""

from abc import abstractmethod
from typing import Any, TypeGuard

from torch import Tensor

from mutorch.errors import ChoiceError, FixedError

from .activity import Active, as_index, count, from_mask
from .base import BaseMutable
from .derived import DerivedMethodMixin, DerivedMutable
from .dump import DumpChosen
from .rules import RepeatedMask
from .value import OneShotMutableValue


class FixedChannelError(FixedError, AssertionError):
    """A change asked of a channel mutable that is already fixed."""


class BaseMutableChannel(DerivedMethodMixin, BaseMutable[Any, Any]):
    """Which of a number of channels are active (seed 001).

    Which ones is either a count, where they are the first, or a list of positions: `prefix` and `active_index()` say so
    without making a mask. A subclass implements `current_mask` and the abstract members of `BaseMutable`, and calls
    `tick()` when its activity changes; one that knows better than its mask overrides `active` too.

    `c * 2`, `c * 1.5`, `c // 8`, `c // (ratio, divisor)` and `c * value` give derived mutables that follow it.

    Args:
        num_channels: how many channels there are.
        kwargs: `alias` and `init_cfg`; see `BaseMutable`.

    Attributes:
        name: free for the owner to use.

    Errors:
        ChoiceError: no positive number of channels.
    """

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(num_channels, bool) or not isinstance(num_channels, int) or num_channels < 1:
            raise ChoiceError(f"num_channels must be an int of at least 1, got {num_channels!r}")
        self.name = ""
        self.num_channels = num_channels

    @property
    def mutable_prefix(self) -> str:
        """`'channel'`, the kind of decision."""
        return "channel"

    @property
    @abstractmethod
    def current_mask(self) -> Tensor:
        """A bool tensor with one entry a channel."""

    @property
    def activated_channels(self) -> int:
        """How many channels are active."""
        return count(self.active())

    @property
    def prefix(self) -> int | None:
        """`k` where exactly the first `k` channels are active, else `None`."""
        active = self.active()
        return active if isinstance(active, int) else None

    def active_index(self) -> Tensor:
        """The positions of the active channels: int64, ascending, on the CPU. Not to be written to."""
        return as_index(self.active())

    def active(self) -> Active:
        """`prefix`, or else `active_index()`."""
        return from_mask(self.current_mask)

    def fix_chosen(self, chosen: Any = None) -> None:
        """Make `chosen`, or the current choice, final.

        Errors:
            FixedError: fixed before (also `AttributeError` and `AssertionError`).
            ChoiceError: not a choice; nothing is changed.
        """
        self._check_not_fixed()
        if chosen is not None:
            self.current_choice = chosen
        self.is_fixed = True

    def dump_chosen(self) -> DumpChosen:
        """How many channels are active, with the number of all as meta."""
        return DumpChosen(chosen=self.activated_channels, meta={"max_channels": self.num_channels})

    def expand_mutable_channel(self, expand_ratio: int | float) -> DerivedMutable:
        """A derived mutable in which every channel is `expand_ratio` channels that stand side by side.

        That is what flattening an image makes of channels. Its choice is its mask.

        Errors:
            ChoiceError: a ratio that is not a whole number of at least 1.
        """
        if isinstance(expand_ratio, bool) or expand_ratio != int(expand_ratio) or expand_ratio < 1:
            raise ChoiceError(f"every channel becomes a whole number of channels, got {expand_ratio!r} for each")
        repeated = RepeatedMask(self, int(expand_ratio))
        return DerivedMutable(choice_fn=repeated, mask_fn=repeated)

    def __mul__(self, other: object) -> DerivedMutable:
        return self.derive_expand_mutable(other) if _is_ratio(other) else super().__mul__(other)

    def __floordiv__(self, other: object) -> DerivedMutable:
        return self.derive_divide_mutable(other) if _is_ratio(other) else super().__floordiv__(other)

    def __repr__(self) -> str:
        return f"{self._class_name()}(num_channels={self.num_channels}, activated_channels={self.activated_channels})"

    def _class_name(self) -> str:
        return type(self).__name__

    def _describe(self) -> str:
        return f"{type(self).__name__}{f' {self.alias!r}' if self.alias else ''} of {self.num_channels} channels"

    def _check_not_fixed(self) -> None:
        try:
            super()._check_not_fixed()
        except FixedError as error:
            raise FixedChannelError(str(error)) from None


def _is_ratio(other: object) -> TypeGuard[OneShotMutableValue]:
    return isinstance(other, OneShotMutableValue) and isinstance(other.max_choice, int | float)
