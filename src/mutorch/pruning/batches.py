"""What a batch of a user's data means to a model."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mutorch.errors import ConfigError
from mutorch.utils import ExampleInputs

Loss = nn.Module | Callable[..., Tensor]
"""A criterion of torch (`nn.CrossEntropyLoss()`, `F.cross_entropy`), which takes outputs and targets, or a function of the
model and a batch, as `fit` takes it."""


def forward(model: nn.Module, batch: Any) -> Any:
    """The model's outputs on a batch: inputs, (inputs, targets) or a dict of keyword arguments."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(batch[0] if isinstance(batch, tuple | list) else batch)


def first_batch(data: Iterable[Any]) -> Any:
    """The first of the batches.

    Errors:
        ConfigError: there is none, or they can be read only once.
    """
    if isinstance(data, Iterator):
        raise ConfigError("data is an iterator, which can be read only once; give a DataLoader or a list of batches")
    for batch in data:
        return batch
    raise ConfigError("data has no batches")


def one_sample(batch: Any) -> ExampleInputs:
    """The inputs of a batch, of its first sample alone.

    Example:
        >>> inputs = one_sample((torch.zeros(64, 3), torch.zeros(64)))
        >>> [tuple(x.shape) for x in inputs]
        [(1, 3)]
    """
    inputs = batch if isinstance(batch, Mapping) else (batch[0] if isinstance(batch, tuple | list) else batch,)
    one: ExampleInputs = tree_map(lambda x: x[:1] if isinstance(x, Tensor) and x.dim() else x, inputs)
    return one


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are; the CPU for one that has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on a device."""
    return tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, batch)


def loss_of(loss: Loss) -> Callable[[nn.Module, Any], Tensor]:
    """The loss as a function of a model and a batch.

    Example:
        >>> step = loss_of(nn.MSELoss())
        >>> step(nn.Identity(), (torch.ones(2), torch.zeros(2)))
        tensor(1.)
    """
    if not callable(loss):
        raise ConfigError(f"loss must be a criterion, or a function of the model and a batch, got {loss!r}")
    if not isinstance(loss, nn.Module) and getattr(loss, "__module__", "") != F.__name__:
        return loss

    def with_targets(model: nn.Module, batch: Any) -> Tensor:
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise ConfigError(
                f"a criterion needs batches of (inputs, targets), got {type(batch).__name__}; give loss as a function "
                "of the model and a batch"
            )
        value: Tensor = loss(forward(model, batch), batch[1])
        return value

    return with_targets
