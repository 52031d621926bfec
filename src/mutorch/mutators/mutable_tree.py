"""The mutables of a model as a tree: scopes hold what is inside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from mutorch.errors import ChoiceError
from mutorch.mutables import Mutable


class StructuredMutableTreeNode:
    """A node of the tree of mutables; the root holds none.

    Args:
        mutable: what stands here.

    Attributes:
        mutable: `None` at the root.
        children: the nodes below, in the order of the model.

    Example:
        >>> from mutorch.mutables import LayerChoice
        >>> from torch import nn
        >>> root = StructuredMutableTreeNode(None)
        >>> node = root.add_child(LayerChoice([nn.ReLU()], key="op"))
        >>> [mutable.key for mutable in root], root.type(), node.type().__name__
        (['op'], None, 'LayerChoice')
    """

    def __init__(self, mutable: Mutable | None) -> None:
        self.mutable = mutable
        self.children: list[StructuredMutableTreeNode] = []

    def add_child(self, mutable: Mutable) -> StructuredMutableTreeNode:
        """A new node below this one."""
        self.children.append(StructuredMutableTreeNode(mutable))
        return self.children[-1]

    def type(self) -> type[Mutable] | None:
        """The class of the mutable; `None` at the root."""
        return None if self.mutable is None else type(self.mutable)

    def __iter__(self) -> Iterator[Mutable]:
        return self.traverse()

    def traverse(
        self, order: Literal["pre", "post"] = "pre", deduplicate: bool = True, memo: set[str] | None = None
    ) -> Iterator[Mutable]:
        """The mutables below and of this node.

        Args:
            order: a scope before what is inside it, or after.
            deduplicate: of mutables with one key, only the first.
            memo: keys that are left out; those that were given are added.

        Errors:
            ChoiceError: another order (also `AssertionError`).
        """
        if order not in ("pre", "post"):
            raise ChoiceError(f"order is 'pre' or 'post', got {order!r}")
        return self._traverse(order, deduplicate, set() if memo is None else memo)

    def _traverse(self, order: Literal["pre", "post"], deduplicate: bool, memo: set[str]) -> Iterator[Mutable]:
        if order == "pre":
            yield from self._own(deduplicate, memo)
        for child in self.children:
            yield from child._traverse(order, deduplicate, memo)
        if order == "post":
            yield from self._own(deduplicate, memo)

    def _own(self, deduplicate: bool, memo: set[str]) -> Iterator[Mutable]:
        if self.mutable is None or self.mutable.key is None:
            return
        if not deduplicate or self.mutable.key not in memo:
            memo.add(self.mutable.key)
            yield self.mutable
