"""A batch norm with weights and statistics of its own for every width."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mutorch.errors import ChoiceError, StateError, nearest

from .dynamic import Dims, DynamicState, Mode, active_tensor
from .extent import Extent
from .norm import DynamicBatchNorm2d

TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class SwitchableBatchNorm2d(DynamicBatchNorm2d):
    """A batch norm in which each width has its own norm (slimmable networks, Yu et al. 2019).

    The full width has the tensors of the module itself; the others stand in `candidate_bn`, by width. They begin with the
    values of the first features.

    Example:
        >>> from mutorch.mutables import OneShotMutableChannel
        >>> norm, width = SwitchableBatchNorm2d(8), OneShotMutableChannel(8, [4, 8])
        >>> norm.init_candidates([4, 8])
        >>> norm.register_mutable_attr("num_features", width)
        >>> width.current_choice = 4
        >>> norm.weight is norm.candidate_bn["4"].weight
        True
    """

    num_batches_tracked = active_tensor("num_batches_tracked")
    candidate_bn: nn.ModuleDict

    def _begin(self) -> None:
        super()._begin()
        self.candidate_bn = nn.ModuleDict()

    def init_candidates(self, candidates: Sequence[int]) -> None:
        """Make a norm for each of these widths; once.

        Errors:
            ChoiceError: made before, or a width that is no int from 1 to all features (also `AssertionError`).
        """
        whole = int(self.__dict__["num_features"])
        if len(self.candidate_bn):
            raise ChoiceError(f"the widths of this norm are {list(self.candidate_bn)} already")
        for width in candidates:
            if isinstance(width, bool) or not isinstance(width, int) or not 0 < width <= whole:
                raise ChoiceError(f"a width must be an int from 1 to {whole}, got {width!r}")
        for width in sorted(set(candidates) - {whole}):
            self.candidate_bn[str(width)] = self._narrow(width)

    def _narrow(self, width: int) -> nn.BatchNorm2d:
        own = self.__dict__
        norm = nn.BatchNorm2d(width, own["eps"], own["momentum"], own["affine"], own["track_running_stats"])
        for held, of_self in ((norm._parameters, self._parameters), (norm._buffers, self._buffers)):
            for name, narrow in held.items():
                whole = of_self.get(name)
                if narrow is not None and whole is not None:
                    narrow.data = (whole.detach()[:width] if whole.dim() else whole.detach()).clone()
        return norm

    def describe(self, state: DynamicState) -> None:
        super().describe(state)
        extent = self.extent("num_features")
        if extent is not None:
            for name in TENSORS:
                state.tensors.setdefault(name, ())
                state.rules[name] = _OfWidth(self, extent)

    def running_modules(self) -> list[nn.Module]:
        """The norm of the current width; none of them at full width."""
        extent = self.extent("num_features")
        if extent is None or extent.count() == extent.size:
            return []
        return [norm for width, norm in self.candidate_bn.items() if int(width) == extent.count()]

    def extras(self) -> tuple[str, ...]:
        return (*super().extras(), "candidate_bn")


class _OfWidth:
    """The tensor of the norm that the current width has."""

    def __init__(self, norm: SwitchableBatchNorm2d, extent: Extent) -> None:
        self.norm, self.extent = norm, extent

    def read(self, name: str, whole: Tensor, dims: Dims, mode: Mode) -> Tensor:
        count = self.extent.count()
        if count == self.extent.size:
            return whole
        if mode == "mask":
            raise StateError("a SwitchableBatchNorm2d computes in slice mode only: each width has tensors of its own")
        if str(count) not in self.norm.candidate_bn:
            known = nearest(count, [*map(int, self.norm.candidate_bn), self.extent.size])
            raise ChoiceError(f"this SwitchableBatchNorm2d has no norm for {count} features; {known}")
        found: Tensor = getattr(self.norm.candidate_bn[str(count)], name)
        return found

    def idle(self) -> tuple[str, ...]:
        """The norm's own tensors, but at full width."""
        return () if self.extent.count() == self.extent.size else TENSORS
