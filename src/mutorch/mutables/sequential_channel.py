"""Channels of which the first so many are active."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor

from mutorch.errors import ChoiceError, nearest
from mutorch.space import RandomSource, as_random

from .activity import Active, as_mask, from_index
from .channel import BaseMutableChannel, FixedChannelError
from .clock import tick

CLOSE = 1e-9
"""A ratio k / n times n may come out this little below k."""


class SequentialMutableChannel(BaseMutableChannel):
    """The first `k` of the channels, like 11110000 (seed 001, which spells it `SquentialMutableChannel`).

    The first are those with the lowest positions, or the first of an order that something which ranks channels gives:
    see `set_order`. Its state is a number, not a mask. An int is a number of channels and a float a share of them, whichever way
    `current_choice` is spelled when read. Nothing is rounded into the range: 0, or more channels than there are, is an
    error; a share that is too small for one channel keeps one.

    Args:
        num_channels: how many channels there are.
        choice_mode: how choices are spelled: as `'number'` or as `'ratio'`.
        kwargs: see `BaseMutableChannel`.

    Errors:
        ChoiceError: another mode.

    Example:
        >>> channels = SequentialMutableChannel(10, choice_mode="ratio")
        >>> channels.current_choice = 0.5
        >>> channels.current_choice, channels.activated_channels, channels.current_mask.int().tolist()
        (0.5, 5, [1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
        >>> channels.current_choice = 2
        >>> channels.current_choice, (channels * 3).current_choice
        (0.2, 6)
    """

    def __init__(self, num_channels: int, choice_mode: Literal["number", "ratio"] = "number", **kwargs: Any) -> None:
        super().__init__(num_channels, **kwargs)
        if choice_mode not in ("number", "ratio"):
            raise ChoiceError(f"no choice_mode {choice_mode!r}; {nearest(choice_mode, ('number', 'ratio'))}")
        self.choice_mode = choice_mode
        self._count = num_channels
        self._order: Tensor | None = None
        self._ordered: tuple[int, Active] = (0, 0)  # of how many, which are the first of the order

    @property
    def order(self) -> list[int]:
        """All positions, those that are kept longest first."""
        return list(range(self.num_channels)) if self._order is None else self._order.tolist()

    def set_order(self, order: Tensor | Sequence[int] | None) -> None:
        """Let the active channels be the first of `order`; the choice stays.

        Args:
            order: every position once, what is kept longest first; `None`: ascending.

        Errors:
            ChoiceError: no permutation of the positions.
            FixedError: fixed, so that its channels are final.

        Example:
            >>> channels = SequentialMutableChannel(4)
            >>> channels.set_order([2, 0, 3, 1])
            >>> channels.current_choice = 2
            >>> channels.active(), channels.current_mask.int().tolist(), channels.prefix
            (tensor([0, 2]), [1, 0, 1, 0], None)
        """
        self._check_not_fixed()
        self._order = None if order is None else self._permutation(order)
        self._ordered = (0, 0)
        tick()

    def _permutation(self, order: Tensor | Sequence[int]) -> Tensor | None:
        positions = order.detach().cpu() if isinstance(order, Tensor) else torch.tensor(list(order), device="cpu")
        ascending = torch.arange(self.num_channels, device="cpu")
        whole = not positions.is_floating_point() and positions.dtype != torch.bool
        if (
            not whole
            or positions.shape != ascending.shape
            or not torch.equal(positions.long().sort().values, ascending)
        ):
            raise ChoiceError(
                f"an order of {self._describe()} has every position from 0 to {self.num_channels - 1} once, got {order!r}"
            )
        positions = positions.long().clone()
        return None if torch.equal(positions, ascending) else positions

    @property
    def is_num_mode(self) -> bool:
        """Whether choices are numbers of channels."""
        return self.choice_mode == "number"

    @property
    def current_choice(self) -> int | float:
        """How many channels are active, as a number or a ratio.

        Errors:
            ChoiceError: neither an int from 1 to all channels nor a float above 0 and up to 1.
        """
        return self._spelled(self._count)

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        count = self._count_of(choice)
        if self._is_fixed and count != self._count:
            raise FixedChannelError(f"{self!r} is fixed, got {choice!r}")
        self.assign(count)

    def assign(self, choice: Any) -> None:
        count = choice if type(choice) is int else self._count_of(choice)
        # Past nn.Module.__setattr__, which looks for parameters, buffers and modules first.
        state = self.__dict__
        if state["_count"] != count:
            state["_count"] = count
            tick()

    @property
    def choices(self) -> list[Any]:
        """All numbers of channels, or their ratios, ascending; after fixing, the one that is left."""
        return [self.current_choice] if self._is_fixed else self._all_choices()

    @property
    def default_choice(self) -> Any:
        """All channels, or the most that may be chosen; after fixing, what is left."""
        return self.choices[-1]

    @property
    def max_choice(self) -> Any:
        """The largest choice."""
        return self.choices[-1]

    @property
    def min_choice(self) -> Any:
        """The smallest choice."""
        return self.choices[0]

    def sample_choice(self, rng: RandomSource | None = None) -> Any:
        """A choice, uniformly.

        Args:
            rng: a seed or a `random.Random`; `None` draws from a new generator, so the result cannot be repeated.
        """
        return as_random(rng).choice(self.choices)

    def allows(self, choice: Any) -> bool:
        try:
            self._count_of(choice)
        except ChoiceError:
            return False
        return True

    @property
    def current_mask(self) -> Tensor:
        """The mask, a new bool tensor on the CPU."""
        return as_mask(self.active(), self.num_channels)

    @property
    def activated_channels(self) -> int:
        return self._count

    def active(self) -> Active:
        """How many of the first channels are active; their positions where the order says others."""
        if self._order is None:
            return self._count
        if self._ordered[0] != self._count:
            self._ordered = self._count, from_index(self._order[: self._count].sort().values)
        return self._ordered[1]

    def fix_chosen(self, chosen: Any = ...) -> None:
        """Make `chosen` final; without one, the current choice.

        Errors:
            FixedError: fixed before (also `AttributeError` and `AssertionError`).
            ChoiceError: not a choice; nothing is changed.
        """
        super().fix_chosen(None if chosen is ... else chosen)

    def _all_choices(self) -> list[Any]:
        return [self._spelled(count) for count in range(1, self.num_channels + 1)]

    def _spelled(self, count: int) -> int | float:
        return count if self.choice_mode == "number" else count / self.num_channels

    def _count_of(self, choice: Any) -> int:
        """The number of channels that a choice means."""
        if is_number(choice):
            if 1 <= choice <= self.num_channels:
                return int(choice)
        elif is_ratio(choice) and 0 < choice <= 1:
            return max(1, int(self.num_channels * choice + CLOSE))
        raise ChoiceError(
            f"{self._describe()} has no choice {choice!r}; allowed: ints from 1 to {self.num_channels}, and floats above "
            "0.0 and up to 1.0 as shares of them"
        )

    def _class_name(self) -> str:
        # Printed as the documents print it.
        return "SquentialMutableChannel" if type(self) is SequentialMutableChannel else super()._class_name()


SquentialMutableChannel = SequentialMutableChannel
"""The same class, as the documents of the older library spell it."""


def is_number(choice: Any) -> TypeGuard[int]:
    """Whether a choice counts channels: an int, NumPy's too."""
    return not isinstance(choice, bool) and isinstance(choice, Integral)


def is_ratio(choice: Any) -> TypeGuard[float]:
    """Whether a choice is a share of the channels: a float, NumPy's too."""
    return isinstance(choice, Real) and not isinstance(choice, Integral)
