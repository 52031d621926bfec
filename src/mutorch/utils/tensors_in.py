"""The tensors in whatever a model gives."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in what a model gave: tuples, dicts, dataclasses, any object's attributes."""
    found: list[Tensor] = []
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        held = waiting.pop()
        if id(held) in seen or held is None or isinstance(held, str | bytes | int | float | nn.Module | type):
            continue
        seen.add(id(held))
        if isinstance(held, Tensor):
            found.append(held)
        elif isinstance(held, Mapping):
            waiting += list(held.values())
        elif isinstance(held, list | tuple | set):
            waiting += list(reversed(list(held)))
        elif hasattr(held, "__dict__"):
            waiting += list(vars(held).values())
    return found
