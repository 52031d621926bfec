"""How many of a row of blocks are computed."""

from typing import Any

from .value import OneShotMutableValue

SKIPPED_BY = "skipped_by"
"""The attribute of a block that may be left out: the `MutableDepth` that says so, and the block's place in the row."""


class MutableDepth(OneShotMutableValue):
    """The number of blocks of a row that are computed: the first so many. Begins at all.

    `searchable(model, ..., rules=[depth("layer*")])` makes them; see `mutorch.depth`.

    Args:
        value_list: the numbers that may be chosen.
        name: of the decision.

    Example:
        >>> depth = MutableDepth([2, 3, 4], name="layer1.depth")
        >>> depth.keeps(3, "2"), depth.keeps(3, "3")
        (True, False)
    """

    def __init__(self, value_list: list[int], name: str = "", **kwargs: Any) -> None:
        super().__init__(value_list, **kwargs)
        self.name = name

    def keeps(self, choice: int, candidate: str) -> bool:
        """Whether the block at place `candidate` is in the model at `choice`."""
        return int(candidate) < choice

    def skips(self, place: int) -> bool:
        """Whether the block at `place` is left out now."""
        return bool(place >= self._current_choice)
