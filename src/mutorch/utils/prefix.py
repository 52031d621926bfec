"""Keys under a common prefix."""

from collections.abc import Mapping
from typing import TypeVar

V = TypeVar("V")


def add_prefix(inputs: Mapping[str, V], prefix: str) -> dict[str, V]:
    """A new dict with the keys `<prefix>.<key>`, as for the losses of several subnets.

    Example:
        >>> add_prefix({"loss": 0.5, "accuracy": 0.9}, "max_subnet")
        {'max_subnet.loss': 0.5, 'max_subnet.accuracy': 0.9}
    """
    return {f"{prefix}.{key}": value for key, value in inputs.items()}
