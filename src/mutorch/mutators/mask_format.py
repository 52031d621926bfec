"""Between masks and the choices that an architecture file has."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mutorch.errors import ChoiceError, nearest
from mutorch.mutables import Chooser, InputChoice, LayerChoice
from mutorch.mutables.masks import as_mask, one_hot


def encode(mutable: Chooser, mask: Any) -> Any:
    """What an exported architecture says of a mask: a label, a list of labels, or the weights where some are not 0 or 1.

    Errors:
        ChoiceError: a mask of another length (also `AssertionError`).

    Example:
        >>> from torch import nn
        >>> op = LayerChoice({"conv": nn.Identity(), "skip": nn.Identity()}, key="op")
        >>> encode(op, [False, True]), encode(op, [1.0, 1.0]), encode(op, [0.0, 0.0]), encode(op, [0.5, 0.5])
        ('skip', ['conv', 'skip'], [], [0.5, 0.5])
    """
    weights = as_mask(mask, len(mutable.choices), mutable._describe()).tolist()
    if any(weight not in (0, 1) for weight in weights):
        return weights
    labels = [label for label, weight in zip(mutable.choices, weights, strict=True) if weight]
    return labels[0] if len(labels) == 1 else labels


def decode(mutable: Chooser, value: Any) -> Tensor:
    """The mask that a choice of an architecture file stands for.

    A label or position, a list of them, a list of bools or floats with one entry for each candidate; tensors and NumPy
    arrays as the lists they hold.

    Errors:
        ChoiceError: a name or position that there is not, or a list of bools or floats of another length (also
            `ValueError`).

    Example:
        >>> from torch import nn
        >>> op = LayerChoice({"conv": nn.Identity(), "skip": nn.Identity()}, key="op")
        >>> decode(op, "skip").tolist(), decode(op, [0, 1]).tolist(), decode(op, [0.0, 1.0]).tolist()
        ([False, True], [True, True], [0.0, 1.0])
    """
    items = _plain(value)
    count = len(mutable.choices)
    for kind in (bool, float):
        if items and all(type(item) is kind for item in items):
            if len(items) != count:
                raise ChoiceError(
                    f"{mutable._describe()} has {count} candidates, expected one {kind.__name__} for each, got {value!r}"
                )
            return torch.tensor(items)
    return one_hot([_position(mutable, item, value) for item in items], count)


def _plain(value: Any) -> list[Any]:
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    items = list(value) if isinstance(value, list | tuple) else [value]
    return [item.item() if isinstance(item, Tensor | np.generic) and item.ndim == 0 else item for item in items]


def _position(mutable: Chooser, item: Any, value: Any) -> int:
    names = mutable.candidate_names
    labels = mutable.choices
    if isinstance(item, str):
        if names.count(item) == 1:
            return names.index(item)
    elif type(item) is int:
        if item in labels:
            return labels.index(item)  # which of a fixed choice is not its position
        if 0 <= item < len(names) and not mutable.is_fixed:
            return item
    positions = labels if mutable.is_fixed else range(len(names))
    expected = nearest(item, dict.fromkeys([*names, *positions]) if isinstance(item, str) else positions)
    raise ChoiceError(f"{mutable._describe()} has no candidate {item!r}, got {value!r}; {expected}")


def choice_of(mutable: Chooser, mask: Any) -> Any:
    """The choice that a mask stands for, spelled as in a search space; `None` for a mask that is none of its choices."""
    if mask is None:
        return None
    weights = as_mask(mask, len(mutable.choices), mutable._describe()).tolist()
    numbers = [number for number, weight in enumerate(weights) if weight]
    is_plain = all(weight in (0, 1) for weight in weights)
    if not is_plain or (isinstance(mutable, LayerChoice) and len(numbers) != 1):
        return None
    choice = mutable.decided(numbers) if numbers or isinstance(mutable, InputChoice) else None
    return choice if mutable.allows(choice) else None


def missing_and_unexpected(given: Mapping[str, Any], keys: list[str]) -> tuple[list[str], list[str]]:
    """Keys that an architecture does not have, and keys of it that there are not."""
    return [key for key in keys if key not in given], [key for key in given if key not in keys]
