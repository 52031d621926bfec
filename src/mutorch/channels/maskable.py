"""Whether zeros in place of removed channels compute what their absence does."""

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mutorch.errors import MutorchError
from mutorch.mutables.clock import tick
from mutorch.ops.masked_statistics import Place
from mutorch.space import random_at
from mutorch.utils import outputs_of

from .build import Search
from .sizes import DimSize
from .trial import is_inside

MASKABLE = frozenset(
    (
        "aten._softmax",
        "aten._safe_softmax",
        "aten.sum",
        "aten.mean",
        "aten.var",
        "aten.native_layer_norm",
        "aten.native_group_norm",
        "aten._fused_rms_norm",
        "aten.rms_norm",
        "torch.rms_norm",
        "torch.transformer_encoder_layer",  # in mask mode, its parts are computed one by one
        "torch.multi_head_attention_forward",
        "torch.scaled_dot_product_attention",
    )
)
"""Operations over searchable channels that are computed on the active ones alone; see `MaskedStatistics`."""


class ModeError(MutorchError, RuntimeError):
    """A model that cannot compute in a mode."""


def check_maskable(search: Search) -> None:
    """Look at what the observed forward did along the channels that are decided.

    Errors:
        ModeError: something that zeros in place of channels change.
    """
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


def check_masked(net: nn.Module, search: Search) -> None:
    """Run both modes on the example inputs, at the smallest architecture and a random one; they must agree.

    Where the model does not run on them, nothing is compared.
    """
    before = [(decision, decision.current_choice) for decision in search.decisions]
    mode = search.execution.mode
    try:
        for number in range(2):
            for decision, _ in before:
                choices = list(decision.choices)
                drawn = random_at(number, "masked", decision.name).choice(choices)
                decision.assign(choices[0] if number == 0 else drawn)
            search.execution.mode = "slice"
            try:
                expected = _outputs(net, search)
            except Exception:  # it has moved on since it was observed
                return
            search.execution.mode = "mask"
            found = _outputs(net, search)
            wrong = [path for path, outputs in found.items() if _differ(outputs, expected.get(path, []))]
            if _differ(found[""], expected[""]):
                where = f"in {wrong[0]!r}" if wrong[0] else "in its own forward"
                raise ModeError(
                    f"{type(net).__name__} computes something else with zeros in place of removed channels, first {where}: "
                    "removed channels are not zero there; use mode 'slice'"
                )
    finally:
        search.execution.mode = mode
        for decision, choice in before:
            decision.assign(choice)
        tick()


def _outputs(net: nn.Module, search: Search) -> dict[str, list[Tensor]]:
    """What each module gave in its first call, by path, in the order in which they ended."""
    device = next((tensor.device for tensor in (*net.parameters(), *net.buffers())), None)
    inputs = tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, search.example_inputs)
    return outputs_of(net, inputs)


def _differ(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether outputs of the same shape are more apart than the order of sums explains; other shapes say nothing."""
    for a, b in zip(one, other, strict=False):
        if a.shape == b.shape and a.numel() and a.is_floating_point() and not a.is_meta:
            if not torch.equal(a.isnan(), b.isnan()):
                return True
            scale = b.double().nan_to_num(0).abs().max().item()
            gap = (a.double() - b.double()).nan_to_num(0).abs().max().item()
            if gap > (1e-3 if a.dtype in (torch.float32, torch.float64) else 5e-2) * max(scale, 1e-12):
                return True
    return False
