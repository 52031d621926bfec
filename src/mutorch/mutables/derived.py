"""Values that follow other mutables: twice a width, a sum of two, half a depth."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

from torch import Tensor

from mutorch.errors import ChoiceError, DerivedError, SpaceError

from .activity import Active, as_index, count, from_mask
from .base import BaseMutable
from .dump import DumpChosen
from .rules import ConcatChoice, ConcatMask, Divide, Expand, LeadingMask, MaskRule, has_mask
from .sources import find_sources, rebind


class DerivedMethodMixin:
    """The methods that derive; values, channels and derived mutables have them (seed 000).

    Choices follow their source for ever: `(v * 2).current_choice` is read from `v` each time. Where the source has a
    mask (a channel mutable), the derived one has the mask that belongs to its choice: leading channels for expand and
    divide, the masks one after the other for concat.
    """

    def derive_same_mutable(self) -> "DerivedMutable":
        """A mutable with the choice of this one."""
        return self.derive_expand_mutable(1)

    def derive_expand_mutable(self, expand_ratio: "int | float | BaseMutable[Any, Any]") -> "DerivedMutable":
        """A mutable with `int(choice * expand_ratio)`; a mutable as ratio stays live.

        Errors:
            NotImplementedError: a ratio that is neither a number nor a mutable.
        """
        if isinstance(expand_ratio, bool) or not isinstance(expand_ratio, int | float | BaseMutable):
            raise NotImplementedError(
                f"an expand ratio must be int, float or a mutable, got {type(expand_ratio).__name__}"
            )
        return _derived(Expand(self, expand_ratio))

    def derive_divide_mutable(self, ratio: "int | float | BaseMutable[Any, Any]", divisor: int = 8) -> "DerivedMutable":
        """A mutable with `make_divisible(choice // ratio, divisor)`.

        A float ratio is cut to an int, and rounds to nothing (divisor 1), as does a mutable, which stays live.

        Errors:
            NotImplementedError: a ratio that is neither a number nor a mutable.
            ChoiceError: a ratio below 1.
        """
        if isinstance(ratio, bool) or not isinstance(ratio, int | float | BaseMutable):
            raise NotImplementedError(f"a ratio must be int, float or a mutable, got {type(ratio).__name__}")
        if not isinstance(ratio, BaseMutable) and int(ratio) < 1:
            raise ChoiceError(f"a ratio to divide by must be at least 1, got {ratio}")
        return _derived(Divide(self, ratio, divisor if isinstance(ratio, int) else 1))

    @staticmethod
    def derive_concat_mutable(mutables: "Sequence[BaseMutable[Any, Any]]") -> "DerivedMutable":
        """A mutable with the sum of the choices and the concatenation of the masks.

        Errors:
            DerivedError: a member that has no mask (read when the mask is read).
        """
        members = tuple(mutables)
        for member in members:
            if not isinstance(member, BaseMutable):
                raise TypeError(f"only mutables can be concatenated, got {type(member).__name__}")
        return DerivedMutable(choice_fn=ConcatChoice(members), mask_fn=ConcatMask(members))

    def __mul__(self, other: object) -> "DerivedMutable":
        if isinstance(other, bool) or not isinstance(other, int | float):
            return NotImplemented
        return self.derive_expand_mutable(other)

    def __rmul__(self, other: object) -> "DerivedMutable":
        return self.__mul__(other)  # not `self * other`, which would come back here

    def __floordiv__(self, other: object) -> "DerivedMutable":
        if isinstance(other, tuple) and len(other) == 2:
            return self.derive_divide_mutable(*other)
        if isinstance(other, bool) or not isinstance(other, int | float):
            return NotImplemented
        return self.derive_divide_mutable(int(other))


class DerivedMutable(DerivedMethodMixin, BaseMutable[Any, Any]):
    """A mutable without choices of its own: its value is computed from its sources whenever it is read (seed 001).

    Args:
        choice_fn: takes nothing, returns the current choice.
        mask_fn: takes nothing, returns the current mask (a bool tensor), for channels.
        source_mutables: what it depends on. `None`: found in what the functions hold on to (closures, partials,
            attributes); finding nothing is an error. A deep copy of a model has derived mutables that read the copy.
        alias, init_cfg: see `BaseMutable`.

    Errors:
        DerivedError: no source was found (also `RuntimeError`).
        SpaceError: a given source is no source mutable (also `ValueError`).

    Example:
        >>> from mutorch.mutables import OneShotMutableValue
        >>> width = OneShotMutableValue([16, 32])
        >>> hidden = DerivedMutable(choice_fn=lambda: width.current_choice + 1)
        >>> width.current_choice = 16
        >>> hidden.current_choice
        17
    """

    def __init__(
        self,
        choice_fn: Callable[[], Any],
        mask_fn: Callable[[], Tensor] | None = None,
        source_mutables: Iterable[BaseMutable[Any, Any]] | None = None,
        alias: str | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(alias=alias, init_cfg=init_cfg)
        self._choice_fn = choice_fn
        self._mask_fn = mask_fn
        sources = find_sources(choice_fn, mask_fn) if source_mutables is None else list(source_mutables)
        for source in sources:
            if not self.is_source_mutable(source):
                raise SpaceError(
                    f"a source must be a mutable with choices of its own, got {source!r}; "
                    "of a derived mutable, give its sources"
                )
        if not sources:
            raise DerivedError(
                "a derived mutable needs a source: choice_fn and mask_fn hold on to no mutable; "
                "let them read one, or name source_mutables"
            )
        # A tuple, so that nn.Module does not register the sources as children a second time.
        self._sources = tuple(dict.fromkeys(sources))

    @staticmethod
    def is_source_mutable(mutable: object) -> bool:
        """Whether `mutable` has choices of its own: a mutable that is not derived."""
        return isinstance(mutable, BaseMutable) and not isinstance(mutable, DerivedMutable)

    @property
    def source_mutables(self) -> set[BaseMutable[Any, Any]]:
        """The mutables it is computed from."""
        return set(self._sources)

    @property
    def sources(self) -> tuple[BaseMutable[Any, Any], ...]:
        """The same in a fixed order."""
        return self._sources

    @property
    def current_choice(self) -> Any:
        """What `choice_fn` gives now.

        Errors:
            DerivedError: when set; set the sources.
        """
        return self._choice_fn()

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        raise DerivedError(f"{self!r} follows its sources; set their current_choice instead of {choice!r} here")

    @property
    def current_mask(self) -> Tensor:
        """What `mask_fn` gives now, a bool tensor.

        Errors:
            DerivedError: without `mask_fn`, or when set.
        """
        if self._mask_fn is None:
            raise DerivedError(f"{self!r} has no mask: its sources are not channels, or mask_fn was not given")
        return self._mask_fn()

    @current_mask.setter
    def current_mask(self, mask: Tensor) -> None:
        raise DerivedError(f"{self!r} follows its sources; set theirs")

    @property
    def has_mask(self) -> bool:
        """Whether it has channels."""
        return self._mask_fn is not None

    @property
    def num_channels(self) -> int:
        """How many channels the mask has; like everything that concerns the mask, an error without one."""
        if isinstance(self._mask_fn, MaskRule):
            return self._mask_fn.length()
        return self.current_mask.numel()

    @property
    def activated_channels(self) -> int:
        """How many of them are active."""
        return count(self.active())

    @property
    def prefix(self) -> int | None:
        """`k` where exactly the first `k` channels are active, else `None`."""
        active = self.active()
        return active if isinstance(active, int) else None

    def active_index(self) -> Tensor:
        """The positions of the active channels: int64, ascending, on the CPU."""
        return as_index(self.active())

    def active(self) -> Active:
        """`prefix`, or else `active_index()`."""
        return self._mask_fn.active() if isinstance(self._mask_fn, MaskRule) else from_mask(self.current_mask)

    @property
    def is_fixed(self) -> bool:
        """Whether all sources are fixed."""
        return all(source.is_fixed for source in self._sources)

    @is_fixed.setter
    def is_fixed(self, is_fixed: bool) -> None:
        raise DerivedError(f"{self!r} is fixed when its sources are; fix them")

    @property
    def num_choices(self) -> int:
        """Always 1: it decides nothing itself."""
        return 1

    @property
    def choices(self) -> list[Any]:
        """Its value at every combination of its sources' choices; the sources are as before afterwards."""
        before = [source.current_choice for source in self._sources]
        values = []
        try:
            for combination in product(*(source.choices for source in self._sources)):
                for source, choice in zip(self._sources, combination, strict=True):
                    source.assign(choice)
                values.append(self.current_choice)
        finally:
            for source, choice in zip(self._sources, before, strict=True):
                source.assign(choice)
        return values

    def fix_chosen(self, chosen: Any = None) -> None:
        """Refused: a derived mutable has nothing of its own to fix (the documents let this pass with a warning).

        Errors:
            DerivedError: unless `chosen` is what the sources already say.
        """
        if chosen is not None and chosen != self.dump_chosen().chosen:
            raise DerivedError(f"{self!r} cannot be fixed to {chosen!r}; fix its sources")

    def dump_chosen(self) -> DumpChosen:
        """The current value, the active positions where that is a mask. A saved subnet holds the sources' choices."""
        choice = self.current_choice
        return DumpChosen(chosen=self.active_index().tolist() if isinstance(choice, Tensor) else choice, meta=None)

    def __deepcopy__(self, memo: dict[int, Any]) -> "DerivedMutable":
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update({name: rebind(value, memo) for name, value in self.__dict__.items()})
        return copied

    def __repr__(self) -> str:
        mask = "" if self._mask_fn is None else f"activated_channels={self.activated_channels}, "
        return (
            f"{type(self).__name__}(current_choice={self.current_choice}, {mask}"
            f"source_mutables={self.source_mutables}, is_fixed={self.is_fixed})"
        )


def _derived(rule: Expand | Divide) -> DerivedMutable:
    return DerivedMutable(choice_fn=rule, mask_fn=LeadingMask(rule) if has_mask(rule.source) else None)
