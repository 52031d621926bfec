"""How a searchable model computes: with the active channels only, or with zeros in the others' places."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from mutorch.errors import MutorchError, SpaceError, nearest
from mutorch.ops.dynamic import Mode
from mutorch.ops.masked_statistics import Place

from .build import SEARCH, Search
from .sizes import DimSize
from .trial import is_inside

MASKABLE = frozenset(
    (
        "aten._softmax",
        "aten._safe_softmax",
        "aten.mean",
        "aten.var",
        "aten.native_layer_norm",
        "aten.native_group_norm",
        "aten._fused_rms_norm",
        "aten.rms_norm",
        "torch.rms_norm",
        "torch.multi_head_attention_forward",
        "torch.scaled_dot_product_attention",
    )
)
"""Operations over searchable channels that are computed on the active ones alone; see `MaskedStatistics`."""


class ModeError(MutorchError, RuntimeError):
    """A model that cannot compute in a mode."""


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
        ModeError: an operation over searchable channels that masks cannot express; names it and its module.

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
        _check_maskable(search)
    for _, search in found:
        search.execution.mode = mode
        for unit in search.units:
            unit.refresh()


def _check_maskable(search: Search) -> None:
    kinds: dict[tuple[str, Place], set[tuple[bytes, ...]]] = defaultdict(set)
    decided: set[tuple[str, Place]] = set()
    for (operation, path), places in search.observer.averaged.items():
        for place, dims in places.items():
            for dim in dims:
                components = search.observer.algebra.resolve(dim)
                kinds[path, place].add(tuple(component.tobytes() for component in components))
                if any(number in search.group_units for number in search.structure.groups_in(components)):
                    decided.add((path, place))
                    if operation not in MASKABLE and not operation.startswith("aten._scaled_dot_product"):
                        raise ModeError(
                            f"{operation!r} in {path!r} computes over searchable channels, and zeros in place of removed "
                            f"ones would change what it gives; use mode 'slice', or freeze={[path]!r}"
                        )
    _check_factors(search)
    for path, place in decided:
        inside = [found for (other, at), found in kinds.items() if at == place and is_inside(other, path)]
        if len(set().union(*inside)) > 1:
            raise ModeError(
                f"{path!r} averages over several dimensions of size {place[3]}, not all of the same channels, and mode "
                f"'mask' cannot tell them apart; use mode 'slice', or freeze={[path]!r}"
            )


def _check_factors(search: Search) -> None:
    observer = search.observer
    for source, path in observer.factors:
        dims = (
            [source.dim]
            if isinstance(source, DimSize)
            else [bound.dim for bound in observer.bound if bound.attribute == source]
        )
        components = [component for dim in dims for component in observer.algebra.resolve(dim)]
        if any(number in search.group_units for number in search.structure.groups_in(components)):
            name = "the size of a tensor" if isinstance(source, DimSize) else repr(source.name)
            raise ModeError(
                f"{path!r} computes with {name} as a number, which counts searchable channels, and stays as it is in mode "
                f"'mask'; use mode 'slice', or freeze={[path]!r}"
            )


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
