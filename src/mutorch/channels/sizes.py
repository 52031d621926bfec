"""Integers that remember where they come from: an attribute of a module, or the size of a labelled dimension.

During an observed forward, a model's integer attributes and the shapes of its labelled tensors are such integers. Where one
of them reaches a `view`, the observer knows which attribute, or which other dimension, must follow when channels go.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from .dims import Dim


@dataclass(frozen=True, slots=True)
class AttributeSize:
    """An integer attribute of a module, or one entry of a tuple of integers, and its value."""

    module: nn.Module
    name: str
    size: int
    index: int | None = None


@dataclass(frozen=True, slots=True)
class DimSize:
    """The size of a labelled dimension, as it was when it was read."""

    dim: Dim
    size: int


Source = AttributeSize | DimSize


class Watch(Protocol):
    """Is told what a model does with its sizes."""

    def on_equal(self, one: TracedInt, other: TracedInt) -> None:
        """Two sizes are compared, and are equal."""

    def on_number(self, value: TracedInt) -> None:
        """A size becomes a factor: the root of a width, one over a count."""


class TracedInt(int):
    """An integer with the sources that it was computed from.

    Attributes:
        sources: every attribute and size that took part.
        is_source: whether it is the value of its only source, unchanged.
        watch: is told what is done with it.
    """

    sources: tuple[Source, ...]
    is_source: bool
    watch: Watch | None

    def __new__(
        cls, value: int, sources: tuple[Source, ...], *, is_source: bool = False, watch: Watch | None = None
    ) -> TracedInt:
        made = super().__new__(cls, value)
        made.sources, made.is_source, made.watch = sources, is_source, watch
        return made

    def __eq__(self, other: object) -> bool:
        equal = int.__eq__(self, other) is True
        if equal and isinstance(other, TracedInt) and self.watch is not None and self.is_source and other.is_source:
            self.watch.on_equal(self, other)  # what a model checks to be equal must stay equal
        return equal

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __float__(self) -> float:
        return float(self._number())

    def __truediv__(self, other: Any) -> Any:
        return self._number() / _plain_number(other)

    def __rtruediv__(self, other: Any) -> Any:
        return _plain_number(other) / self._number()

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        return pow(self._number(), _plain_number(other), modulus)

    def _number(self) -> int:
        if self.watch is not None:
            self.watch.on_number(self)
        return int(self)

    __hash__ = int.__hash__

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)

    def __copy__(self) -> int:
        return int(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (int(self),)


def _arithmetic(name: str) -> None:
    compute = getattr(operator, name)

    def forward(self: TracedInt, other: Any) -> Any:
        return _computed(compute, int(self), other, self, other)

    def reflected(self: TracedInt, other: Any) -> Any:
        return _computed(compute, other, int(self), self, other)

    setattr(TracedInt, f"__{name}__", forward)
    setattr(TracedInt, f"__r{name}__", reflected)


def _computed(compute: Callable[[Any, Any], Any], left: Any, right: Any, one: TracedInt, other: Any) -> Any:
    if not isinstance(other, int | float):
        return NotImplemented
    left, right = (int(x) if isinstance(x, TracedInt) else x for x in (left, right))
    value = compute(left, right)
    if type(value) is not int:
        return value
    return TracedInt(value, one.sources + (other.sources if isinstance(other, TracedInt) else ()), watch=one.watch)


def _plain_number(value: Any) -> Any:
    return value._number() if isinstance(value, TracedInt) else value


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    _arithmetic(_name)


class TracedShape(tuple[int, ...]):
    """A shape whose sizes remember their dimensions; `torch.Size` would forget them."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements."""
        total = 1
        for size in self:
            total *= size
        return total


def sources_of(value: Any) -> tuple[Source, ...]:
    """What an integer was computed from; nothing for a plain one."""
    return value.sources if isinstance(value, TracedInt) else ()


def trace_attributes(model: nn.Module, watch: Watch) -> None:
    """Replace the integer attributes of every module, and those in tuples and lists, by traced ones, in place."""
    for module in model.modules():
        for name, value in list(vars(module).items()):
            traced = _traced(module, name, value, watch)
            if traced is not value:
                module.__dict__[name] = traced


def _traced(module: nn.Module, name: str, value: Any, watch: Watch) -> Any:
    if type(value) is int:
        return TracedInt(value, (AttributeSize(module, name, value),), is_source=True, watch=watch)
    if type(value) in (tuple, list) and value and all(type(item) is int for item in value):
        return type(value)(
            TracedInt(item, (AttributeSize(module, name, item, index),), is_source=True, watch=watch)
            for index, item in enumerate(value)
        )
    return value


def attribute_sources(value: Any) -> Iterator[AttributeSize]:
    """The attributes among the sources of an integer."""
    for source in sources_of(value):
        if isinstance(source, AttributeSize):
            yield source
