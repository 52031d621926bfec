"""What an exported model has where several candidates were chosen together."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mutorch.errors import ChoiceError


class SummedModules(nn.Module):
    """The sum of what some modules compute: all of one input, or each of its own place in a list of inputs.

    An ordinary module: it makes no choices. torch has no class for this.

    Args:
        modules: name to module; the parameters' names begin with these.
        positions: which of the inputs each module takes; the one input unless given.

    Example:
        >>> import torch
        >>> node = SummedModules({"a": nn.Identity(), "c": nn.Tanh()}, positions=[0, 2])
        >>> node([torch.ones(1), torch.ones(1), torch.zeros(1)])
        tensor([1.])
    """

    def __init__(self, modules: Mapping[str, nn.Module], positions: Sequence[int] | None = None) -> None:
        super().__init__()
        if not modules:
            raise ChoiceError("there is nothing to add up: give at least one module")
        self.summed = nn.ModuleDict(modules)
        self.positions = None if positions is None else list(positions)

    def forward(self, x: Any) -> Any:
        total = None
        for number, module in enumerate(self.summed.values()):
            output = module(x if self.positions is None else x[self.positions[number]])
            total = output if total is None else total + output
        return total
