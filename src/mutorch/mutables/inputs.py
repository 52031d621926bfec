"""The inputs that an `InputChoice` takes: a list, or a dict by name; tensors, or functions that make them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mutorch.errors import ChoiceError, MissingInputError, nearest

NO_KEY = ""
"""In `choose_from`: an input that has no name."""


def in_order(inputs: Any, choose_from: Sequence[str], owner: str) -> list[Any]:
    """The inputs as a list, in the order of `choose_from`. A dict may have more of them.

    Errors:
        ChoiceError: neither a list nor a dict, or another number of inputs (also `AssertionError`).
        MissingInputError: a dict without one of them (also `KeyError`).

    Example:
        >>> in_order({"b": 2, "a": 1, "c": 3}, ["a", "b"], "the choice")
        [1, 2]
    """
    if isinstance(inputs, Mapping):
        missing = [name for name in choose_from if name not in inputs]
        if missing:
            raise MissingInputError(
                f"{owner} chooses from {list(choose_from)} and got no input {missing[0]!r}; "
                f"{nearest(missing[0], list(inputs))}"
            )
        return [inputs[name] for name in choose_from]
    if not isinstance(inputs, list):
        raise ChoiceError(f"{owner} takes a list or a dict of inputs, got {type(inputs).__name__}")
    if len(inputs) != len(choose_from):
        raise ChoiceError(f"{owner} has {len(choose_from)} candidates and takes one input for each, got {len(inputs)}")
    return inputs


def value_of(given: Any) -> Any:
    """An input: itself, or what the function gives that makes it."""
    # A proxy of a tensor, as tracers hand it around, is callable.
    is_value = isinstance(given, nn.Module) or hasattr(type(given), "__torch_function__")
    return given() if callable(given) and not is_value else given
