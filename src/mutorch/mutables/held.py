"""What a module holds of a mutable that decides a part of it, without its being a child."""

from dataclasses import dataclass
from typing import Any

from .base import BaseMutable
from .combinations import at_all_choices, sources_of
from .derived import DerivedMutable


@dataclass(eq=False)
class Reading:
    """The choice of a mutable now, as a function."""

    mutable: Any

    def __call__(self) -> Any:
        return self.mutable.current_choice


class HeldMutable(DerivedMutable):
    """The choice of another mutable, under the name by which a module holds it in `HELD`.

    A decision that stands nowhere else in the model, and has no alias, is named by the module's path and this name.

    Args:
        mutable: a mutable with choices, or one that is derived.
        name: what the module calls it, such as the name of an argument.

    Example:
        >>> from mutorch.mutables import OneShotMutableValue
        >>> width = HeldMutable(OneShotMutableValue([16, 32]), "out_channels")
        >>> width.name, width.current_choice
        ('out_channels', 32)
    """

    def __init__(self, mutable: BaseMutable[Any, Any], name: str) -> None:
        super().__init__(choice_fn=Reading(mutable), source_mutables=sources_of([mutable]))
        self.name = name


class RowDepth(HeldMutable):
    """How many blocks of a row run, as another mutable says; held by the row.

    Example:
        >>> from mutorch.mutables import OneShotMutableValue
        >>> RowDepth(OneShotMutableValue([1, 2, 3]), "depth").keeps("2")
        True
    """

    def keeps(self, place: str) -> bool:
        """Whether the block at `place` runs now."""
        return int(place) < int(self.current_choice)

    def running(self, place: str, source: BaseMutable[Any, Any]) -> list[Any]:
        """The choices of one of the sources at which the block at `place` may run."""
        at = at_all_choices(self.sources, lambda: (source.current_choice, self.keeps(place)))
        return [choice for choice in source.choices if (choice, True) in at]
