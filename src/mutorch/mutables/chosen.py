"""What an exported model has where a `LayerChoice` or `InputChoice` stood and a module alone does not say it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .inputs import in_order, value_of
from .masks import one_hot, reduced


class ChosenInputs(nn.Module):
    """Some of several inputs, reduced. An ordinary module: it makes no choices.

    Args:
        positions: which inputs are taken.
        choose_from: the names of the inputs; see `InputChoice`.
        reduction: see `InputChoice`.
        return_mask: whether the output is a pair, of which the second is a bool mask over the inputs.

    Example:
        >>> ChosenInputs([0, 2], ["", "", ""], "sum")([torch.ones(1), torch.zeros(1), torch.ones(1)])
        tensor([2.])
    """

    def __init__(
        self, positions: Sequence[int], choose_from: Sequence[str], reduction: str, return_mask: bool = False
    ) -> None:
        super().__init__()
        self.positions = list(positions)
        self.choose_from = list(choose_from)
        self.reduction = reduction
        self.return_mask = return_mask

    def forward(self, inputs: Sequence[Any] | Mapping[str, Any]) -> Any:
        ordered = in_order(inputs, self.choose_from, "ChosenInputs")
        output = reduced([value_of(ordered[number]) for number in self.positions], self.reduction, "ChosenInputs")
        return (output, one_hot(self.positions, len(self.choose_from))) if self.return_mask else output

    def extra_repr(self) -> str:
        return f"positions={self.positions}, reduction={self.reduction!r}"


class ChosenLayer(nn.Module):
    """A layer whose output is reduced, or comes with a mask, as a `LayerChoice` with `reduction='none'` or `return_mask` has it.

    An ordinary module: it makes no choices.

    Args:
        layer: what computes.
        reduction: `"none"` gives a list of one output; any other the output.
        mask: a bool mask to give as the second of a pair; `None`: only the output.

    Example:
        >>> ChosenLayer(nn.Identity(), "sum", torch.tensor([False, True]))(torch.ones(1))
        (tensor([1.]), tensor([False,  True]))
    """

    def __init__(self, layer: nn.Module, reduction: str, mask: Tensor | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.reduction = reduction
        self.mask = None if mask is None else mask.tolist()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = reduced([self.layer(*args, **kwargs)], self.reduction, "ChosenLayer")
        return output if self.mask is None else (output, torch.tensor(self.mask))
