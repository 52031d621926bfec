"""A model of the zoo."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .enliven import enliven_

Inputs = Tensor | tuple[Any, ...] | dict[str, Any] | Callable[[nn.Module], Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """How a model is built, and what it is called with.

    `example_inputs` is a tensor, positional arguments (tuple), keyword arguments (dict), or a function that calls the
    model. `large` models have more than 100M parameters.
    """

    name: str
    build: Callable[[], nn.Module]
    example_inputs: Inputs
    large: bool = False

    def make(self) -> nn.Module:
        """The model in eval mode, with the same random weights each time, made to let a signal through."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            model = self.build()
        return enliven_(model, self.run)

    def run(self, model: nn.Module) -> Any:
        """What the model returns for the example inputs."""
        if isinstance(self.example_inputs, Tensor):
            return model(self.example_inputs)
        if isinstance(self.example_inputs, dict):
            return model(**self.example_inputs)
        if isinstance(self.example_inputs, tuple):
            return model(*self.example_inputs)
        return self.example_inputs(model)


def image(size: int, *, channels: int = 3, frames: int | None = None) -> Tensor:
    """A batch of one random image or clip, the same each time."""
    shape = (1, channels, size, size) if frames is None else (1, channels, frames, size, size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))
