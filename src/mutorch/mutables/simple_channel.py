"""Channels that are active one by one."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor

from mutorch.errors import ChoiceError

from .activity import Active, as_mask, from_mask
from .channel import BaseMutableChannel, FixedChannelError
from .clock import tick
from .dump import DumpChosen


class SimpleMutableChannel(BaseMutableChannel):
    """Any of the channels, by a mask (seed 001).

    It is no decision of a search space, which would have to list its `2 ** num_channels - 1` choices: something that
    ranks channels sets it, pruning by norm for one.

    Args:
        num_channels, kwargs: see `BaseMutableChannel`.

    Attributes:
        mask: the buffer behind it, 1.0 for an active channel. It moves with the model, and adds nothing to its
            `state_dict`. Set `current_choice` instead of writing to it: caches then know.

    Example:
        >>> channels = SimpleMutableChannel(4)
        >>> channels.current_choice = torch.tensor([True, False, False, True])
        >>> channels, channels.prefix, channels.active_index()
        (SimpleMutableChannel(num_channels=4, activated_channels=2), None, tensor([0, 3]))
        >>> channels.dump_chosen()
        DumpChosen(chosen=[0, 3], meta={'max_channels': 4})
    """

    mask: Tensor

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(num_channels, **kwargs)
        self.register_buffer("mask", torch.ones(num_channels), persistent=False)
        self._read: tuple[Tensor, int, Active]
        self._write(num_channels)

    @property
    def is_decision(self) -> bool:
        """`False`: its choices have no list."""
        return False

    @property
    def current_choice(self) -> Tensor:
        """The mask, a bool tensor beside the buffer; on the CPU where that is on the meta device.

        Set it to a mask of bools, or of zeros and ones, or to a list of active positions as `dump_chosen` gives.

        Errors:
            ChoiceError: another shape or other values, or no active channel at all.
        """
        return self.current_mask

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        mask = self._mask_of(choice)
        if self._is_fixed and not torch.equal(mask, self.current_mask.cpu()):
            raise FixedChannelError(f"{self!r} is fixed, got {choice!r}")
        self._write(from_mask(mask))
        tick()

    @property
    def current_mask(self) -> Tensor:
        """The mask, as `current_choice` gives it."""
        return as_mask(self.active(), self.num_channels) if self.mask.is_meta else self.mask.bool()

    @property
    def choices(self) -> list[Tensor]:
        """The mask in force; the others are too many to list."""
        return [self.current_choice]

    def allows(self, choice: Any) -> bool:
        try:
            self._mask_of(choice)
        except ChoiceError:
            return False
        return True

    def active(self) -> Active:
        mask = self.mask
        if mask.is_inference():  # has no version
            return from_mask(mask)
        if self._read[0] is not mask or self._read[1] != mask._version:  # somebody wrote to it
            self._read = mask, mask._version, from_mask(mask)
        return self._read[2]

    def _write(self, active: Active) -> None:
        with torch.no_grad():
            self.mask.copy_(as_mask(active, self.num_channels))
        # Kept beside the buffer: to read a tensor costs much more, and a GPU would have to be waited for.
        self._read = self.mask, 0 if self.mask.is_inference() else self.mask._version, active

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # The way of `model.to(device)`. Written again, the mask survives a `to_empty` too.
        active = self.active()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._write(active)
        return self

    def dump_chosen(self) -> DumpChosen:
        """The active positions, with the number of all channels as meta."""
        return DumpChosen(chosen=self.active_index().tolist(), meta={"max_channels": self.num_channels})

    def _mask_of(self, choice: Any) -> Tensor:
        """The choice as a bool mask on the CPU."""
        if isinstance(choice, Tensor):
            mask = choice.detach().cpu()
            if mask.shape != (self.num_channels,):
                raise ChoiceError(f"{self._describe()} takes a mask of that length, got shape {tuple(mask.shape)}")
            if not bool(((mask == 0) | (mask == 1)).all()):
                raise ChoiceError(f"{self._describe()} takes a mask of zeros and ones, got {choice!r}")
        elif isinstance(choice, list | tuple) and all(type(position) is int for position in choice):
            mask = torch.zeros(self.num_channels, device="cpu")
            wrong = [position for position in choice if not 0 <= position < self.num_channels]
            if wrong or len(set(choice)) != len(choice):
                raise ChoiceError(
                    f"{self._describe()} takes positions from 0 to {self.num_channels - 1}, each once; "
                    f"got {wrong[0] if wrong else list(choice)!r}"
                )
            mask[list(choice)] = 1
        else:
            raise ChoiceError(
                f"{self._describe()} takes a mask (a tensor) or a list of active positions, got {choice!r}"
            )
        if not bool(mask.any()):
            raise ChoiceError(f"{self._describe()} needs at least one active channel")
        return mask.bool()
