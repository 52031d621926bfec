"""Dicts in which modules keep what they computed from their parameters in an earlier forward."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from mutorch.utils import ExampleInputs, call, unchanged

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def dicts_of_tensors(model: nn.Module) -> Iterator[tuple[nn.Module, str, dict[Any, Any]]]:
    """Every dict that a module holds as an attribute and that has tensors, with the module and the attribute's name."""
    for module in model.modules():
        for name, held in vars(module).items():
            of_its_own = name not in _OF_EVERY_MODULE and type(held) is dict
            if of_its_own and any(isinstance(value, Tensor) for value in held.values()):
                yield module, name, held


def forget_memories_(model: nn.Module, example_inputs: ExampleInputs) -> None:
    """Empty the dicts that a forward fills again: it then computes from the parameters what it would only have read.

    Other dicts stay as they are, and all do if the model does not run without them.
    """
    before = [(held, dict(held)) for _, _, held in dicts_of_tensors(model)]
    if not before:
        return
    for held, _ in before:
        held.clear()
    filled: list[bool] = []
    try:
        with unchanged(model):
            call(model, example_inputs)
        filled = [bool(held) for held, _ in before]
    except Exception:  # it needs what was in one of them, and nothing says which
        filled = [False] * len(before)
    for (held, content), again in zip(before, filled, strict=True):
        held.clear()
        if not again:
            held.update(content)
