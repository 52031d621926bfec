"""Calling a model with whatever a user has as example inputs."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

ExampleInputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any] | Callable[[nn.Module], Any]
"""A tensor, a tuple or list (`model(*inputs)`), a dict (`model(**inputs)`), or a function that calls the model."""


def call(model: nn.Module, example_inputs: ExampleInputs) -> Any:
    """The model's output on the example inputs.

    Example:
        >>> import torch
        >>> call(nn.Bilinear(2, 2, 1), (torch.zeros(3, 2), torch.zeros(3, 2))).shape
        torch.Size([3, 1])
    """
    if isinstance(example_inputs, Tensor):
        return model(example_inputs)
    if isinstance(example_inputs, Mapping):
        return model(**example_inputs)
    if isinstance(example_inputs, tuple | list):
        return model(*example_inputs)
    if callable(example_inputs):
        return example_inputs(model)
    raise TypeError(
        "example_inputs must be a tensor, a tuple (positional arguments), a dict (keyword arguments) or a function "
        f"that takes the model and calls it, got {type(example_inputs).__name__}"
    )
