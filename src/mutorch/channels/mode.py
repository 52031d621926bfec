"""How a searchable model computes: with the active channels only, or with zeros in the others' places."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mutorch.errors import SpaceError, nearest
from mutorch.ops.dynamic import Mode, dynamic_modules, whole_tensor

from .build import SEARCH, Search
from .maskable import ModeError as ModeError
from .maskable import check_maskable, check_masked


def searches(net: nn.Module) -> list[tuple[str, Search]]:
    """What `searchable` left in a model, or in modules of it, with their paths.

    Errors:
        SpaceError: there is nothing.
    """
    found = [(path, vars(module)[SEARCH]) for path, module in net.named_modules() if SEARCH in vars(module)]
    if not found:
        raise SpaceError(
            f"this {type(net).__name__} is no searchable model; make one with mutorch.searchable(model, inputs)"
        )
    return found


def set_mode_(net: nn.Module, mode: Mode) -> None:
    """Let a searchable model compute in `mode` from now on; choices, parameters and results stay.

    Args:
        mode: `"slice"` reads the active part of every tensor: a narrow subnet costs what it costs alone. `"mask"` computes
            at full width with zeros: shapes do not depend on the choices, so that one graph of `torch.compile` serves
            every architecture, and FSDP and CUDA graphs work. Outputs and gradients are equal up to the order of sums.

    Errors:
        ModeError: an operation over searchable channels that masks cannot express; names it and its module. Beside what is
            known of operations, the first call compares both modes on the example inputs.

    Example:
        >>> import torch
        >>> from mutorch import Mutator, searchable
        >>> net = searchable(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)), torch.zeros(1, 4))
        >>> Mutator(net).set_min_choices()
        >>> sliced = net(torch.ones(1, 4))
        >>> set_mode_(net, "mask")
        >>> bool((net(torch.ones(1, 4)) - sliced).abs().max() < 1e-6)
        True
    """
    if mode not in ("slice", "mask"):
        raise ModeError(f"no mode {mode!r}; {nearest(mode, ('slice', 'mask'))}")
    found = searches(net)
    for _, search in found if mode == "mask" else ():
        check_maskable(search)
    if mode == "mask":
        for path, search in found:
            if not search.is_masked_right:
                check_masked(net.get_submodule(path), search)
                search.is_masked_right = True
    for _, search in found:
        search.execution.mode = mode
        for unit in search.units:
            unit.refresh()
    if mode == "mask":
        _make_masks(net)


def _make_masks(net: nn.Module) -> None:
    """What a compiled graph reads must be there before it is compiled."""
    some = next((tensor.device for tensor in (*net.parameters(), *net.buffers())), torch.device("cpu"))
    for _, module, state in dynamic_modules(net):
        for name, dims in state.tensors.items():
            for _, extent in dims:
                extent.mask(whole_tensor(module, name).device)
        own = next((tensor.device for tensor in module.parameters()), some)
        for extent in state.statistics.values():
            extent.mask(own)


@contextmanager
def in_mode(net: nn.Module, mode: Mode) -> Iterator[None]:
    """The model in `mode` inside the `with`, as it was afterwards."""
    before = [(search, search.execution.mode) for _, search in searches(net)]
    try:
        set_mode_(net, mode)
        yield
    finally:
        for search, old in before:
            search.execution.mode = old
