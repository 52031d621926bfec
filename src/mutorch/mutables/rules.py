"""How derived mutables follow their sources: objects with named parts, so that they copy, pickle and list sources."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor

from mutorch.errors import DerivedError
from mutorch.utils import make_divisible

from .activity import Active, as_mask, count, from_mask, joined, repeated
from .base import BaseMutable


class MaskRule(ABC):
    """A mask that is known by length and active channels, before any tensor is made."""

    @abstractmethod
    def length(self) -> int:
        """How many channels there are."""

    @abstractmethod
    def active(self) -> Active:
        """Which of them are active now."""

    def __call__(self) -> Tensor:
        return as_mask(self.active(), self.length())


@dataclass(eq=False)
class Expand:
    """So many times the source, cut to an int."""

    source: Any
    ratio: Any
    most: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.most = _extreme(self, max)

    def of(self, number: float) -> int:
        return int(number * _live(self.ratio))

    def length_of(self, number: int) -> int:
        return int(number * self.most)

    def __call__(self) -> int:
        return self.of(amount(self.source))


@dataclass(eq=False)
class Divide:
    """The source through `ratio`, made divisible."""

    source: Any
    ratio: Any
    divisor: int
    least: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.least = _extreme(self, min)

    def of(self, number: float) -> int:
        return make_divisible(number // int(_live(self.ratio)), self.divisor)

    def length_of(self, number: int) -> int:
        return make_divisible(number // int(self.least), self.divisor)

    def __call__(self) -> int:
        return self.of(amount(self.source))


@dataclass(eq=False)
class LeadingMask(MaskRule):
    """The first channels, as many as the rule says."""

    rule: Expand | Divide

    def length(self) -> int:
        return self.rule.length_of(length_of(self.rule.source))

    def active(self) -> Active:
        return self.rule.of(count(active_of(self.rule.source)))


@dataclass(eq=False)
class RepeatedMask(MaskRule):
    """Every channel of the source so many times, side by side."""

    source: Any
    times: int

    def length(self) -> int:
        return length_of(self.source) * self.times

    def active(self) -> Active:
        return repeated(active_of(self.source), self.times)


@dataclass(eq=False)
class ConcatChoice:
    """The sum of the members."""

    members: tuple[BaseMutable[Any, Any], ...]

    def __call__(self) -> Any:
        return sum(amount(member) for member in self.members)


@dataclass(eq=False)
class ConcatMask(MaskRule):
    """The masks of the members, one after the other."""

    members: tuple[BaseMutable[Any, Any], ...]

    def length(self) -> int:
        return sum(length_of(member) for member in self._with_masks())

    def active(self) -> Active:
        return joined((length_of(member), active_of(member)) for member in self._with_masks())

    def _with_masks(self) -> tuple[BaseMutable[Any, Any], ...]:
        for member in self.members:
            if not has_mask(member):
                raise DerivedError(f"cannot concatenate masks: {member!r} has none")
        return self.members


def has_mask(mutable: Any) -> bool:
    """Whether a mutable has channels: a channel mutable, what is derived from one, or another with a `current_mask`."""
    known = getattr(mutable, "has_mask", None)
    return hasattr(mutable, "current_mask") if known is None else bool(known)


def length_of(mutable: Any) -> int:
    """How many channels a mutable with a mask has."""
    known = getattr(mutable, "num_channels", None)
    return known if isinstance(known, int) else int(mutable.current_mask.numel())


def active_of(mutable: Any) -> Active:
    """Which channels of a mutable with a mask are active."""
    known = getattr(mutable, "active", None)
    return cast("Active", known()) if callable(known) else from_mask(mutable.current_mask)


def amount(mutable: Any) -> Any:
    """How much a mutable stands for: its choice; the number of active channels where that is a ratio or a mask."""
    if getattr(mutable, "mutable_prefix", None) == "channel":
        return mutable.activated_channels
    choice = mutable.current_choice
    return count(active_of(mutable)) if isinstance(choice, Tensor) else choice


def _extreme(rule: Expand | Divide, of: Callable[[Any], Any]) -> Any:
    """The ratio that makes the longest mask.

    The length of a mask is a fact about the model: it does not follow the ratio, nor shrink when that is fixed.
    """
    if not isinstance(rule.ratio, BaseMutable) or not has_mask(rule.source):
        return rule.ratio
    return of(range(1, length_of(rule.ratio) + 1) if has_mask(rule.ratio) else rule.ratio.choices)


def _live(ratio: Any) -> Any:
    return amount(ratio) if isinstance(ratio, BaseMutable) else ratio
