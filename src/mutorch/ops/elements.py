"""Which elements of a parameter a dynamic module computes with now."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from .dynamic import STATE, DynamicState, cut


def idle_names(module: nn.Module) -> Collection[str]:
    """The module's own parameters that its current choices do without altogether."""
    state = module.__dict__.get(STATE)
    if not isinstance(state, DynamicState):
        return ()
    idle = {name for name in state.rules if name in module._parameters and getattr(module, name) is None}
    for rule in state.rules.values():
        idle.update(getattr(rule, "idle", tuple)())
    return idle


def used_elements(module: nn.Module, name: str) -> Tensor | None:
    """A mask of the elements that the module computes with, of the shape of the parameter; `None` for all.

    Example:
        >>> from mutorch.mutables import SequentialMutableChannel
        >>> from mutorch.ops import DynamicLinear
        >>> linear, width = DynamicLinear(2, 3), SequentialMutableChannel(3)
        >>> linear.register_mutable_attr("out_features", width)
        >>> width.current_choice = 1
        >>> used_elements(linear, "weight").tolist()
        [[True, True], [False, False], [False, False]]
    """
    whole = module._parameters[name]
    state = module.__dict__.get(STATE)
    if whole is None or not isinstance(state, DynamicState) or name not in state.tensors:
        return None
    dims, rule = state.tensors[name], state.rules.get(name)
    mask = torch.zeros(whole.shape, dtype=torch.bool, device=whole.device)
    if rule is None:
        part = cut(mask, dims)
        if part is mask:
            return None
        if part._base is mask:  # as nearly always: the first so many, or the middle
            part.fill_(True)
            return mask
    index = torch.arange(whole.numel(), device=whole.device).view(whole.shape)
    if rule is None:
        used = cut(index, dims)
    elif hasattr(rule, "elements"):
        used = rule.elements(name, index, dims)
    else:
        used = rule.read(name, index, dims, "slice")
    if used is None or used.numel() == whole.numel():
        return None
    mask.view(-1)[used.reshape(-1)] = True
    return mask
