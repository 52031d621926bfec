"""Masks: which of several things a decision takes, or with which weight; and what becomes of their outputs."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from mutorch.errors import ChoiceError, ConfigError, MaskError, nearest

REDUCTIONS = ("sum", "mean", "concat", "none")
Mask = Tensor | Sequence[bool] | Sequence[float]
"""One entry for each candidate: bools take or leave one, numbers weigh it, and 0 leaves it."""


def as_mask(mask: Any, count: int, owner: str) -> Tensor:
    """A mask as a tensor: the very one if it was one, so that gradients flow.

    Bools, and tensors of any floating dtype, are masks; lists and NumPy arrays of bools or numbers become such.

    Args:
        count: how many candidates there are.
        owner: what the mask is for, for errors.

    Errors:
        MaskError: something else (also `TypeError`).
        ChoiceError: another length (also `AssertionError`).

    Example:
        >>> as_mask([0.5, 0], 2, "op")
        tensor([0.5000, 0.0000])
    """
    tensor = mask if isinstance(mask, Tensor) else _tensor(mask, owner)
    if tensor.dtype != torch.bool and not tensor.is_floating_point():
        raise MaskError(f"a mask of {owner} must be bool or floating, got {tensor.dtype}")
    if tuple(tensor.shape) != (count,):
        raise ChoiceError(f"the mask of {owner} must have {count} entries, one a candidate; got {tuple(tensor.shape)}")
    return tensor


def _tensor(mask: Any, owner: str) -> Tensor:
    if isinstance(mask, np.ndarray) or (isinstance(mask, list) and all(np.isscalar(one) for one in mask)):
        array = np.array(mask)
        if array.dtype.kind in "iuf" and not (
            isinstance(mask, list) and any(isinstance(one, bool | np.bool_) for one in mask)
        ):
            return torch.from_numpy(array.astype(np.float32))
        if array.dtype.kind == "b":
            return torch.from_numpy(array)
    raise MaskError(
        f"a mask of {owner} must be a tensor, list or NumPy array of bools or of numbers, got {type(mask).__name__} {mask!r}"
    )


def select(runs: Sequence[Callable[[], Any]], mask: Tensor) -> list[Any]:
    """The outputs of those that the mask takes, in order; weights multiply them. The others are not called."""
    if mask.dtype == torch.bool:
        return [run() for run, taken in zip(runs, mask.tolist(), strict=True) if taken]
    taken = (mask.detach() != 0).tolist()
    return [weighed(mask[number], run()) for number, run in enumerate(runs) if taken[number]]


def weighed(weight: Tensor, output: Any) -> Any:
    """An output times its weight, in the dtype and on the device of the output."""
    return tree_map(lambda x: x * weight.to(x) if isinstance(x, Tensor) else x, output)


def check_reduction(reduction: Any, owner: str) -> None:
    """Nothing, if `reduction` is one of `REDUCTIONS`.

    Errors:
        ConfigError: it is not (also `ValueError`).
    """
    if reduction not in REDUCTIONS:
        raise ConfigError(f"{owner} has no reduction {reduction!r}; {nearest(reduction, REDUCTIONS)}")


def reduced(outputs: list[Any], reduction: str, owner: str) -> Any:
    """What becomes of the outputs that were taken.

    `"none"`: their list. Otherwise `None` for none of them, and for one that one; several are added (`"sum"`), averaged
    over their number (`"mean"`), or put one after the other along dimension 1 (`"concat"`).

    Errors:
        ConfigError: another reduction.

    Example:
        >>> reduced([torch.ones(2), torch.ones(2)], "mean", "op")
        tensor([1., 1.])
    """
    check_reduction(reduction, owner)
    if reduction == "none":
        return outputs
    if len(outputs) < 2:
        return outputs[0] if outputs else None
    if reduction == "concat":
        return torch.cat(outputs, dim=1)
    total = added(outputs)
    return total if reduction == "sum" else tree_map(lambda x: x / len(outputs), total)


def added(outputs: Sequence[Any]) -> Any:
    """The sum of outputs: tensors, or tuples, lists and dicts of them, entry by entry."""
    if all(isinstance(output, Tensor) for output in outputs):
        return reduce(torch.add, outputs)
    return reduce(lambda one, other: tree_map(torch.add, one, other), outputs)


def one_hot(numbers: Sequence[int], count: int) -> Tensor:
    """A bool mask that takes these.

    Example:
        >>> one_hot([1], 3).tolist()
        [False, True, False]
    """
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(numbers)] = True
    return mask
