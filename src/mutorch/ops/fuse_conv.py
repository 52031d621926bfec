"""A convolution whose removed filters are fused into those that stay."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mutorch.errors import ConfigError, StateError

from .conv import DynamicConv2d
from .dynamic import Dims, DynamicState, Mode, cut, masked
from .extent import Extent


class FuseConv2d(DynamicConv2d):
    """A `DynamicConv2d` whose filters are mixtures of all filters (DCFF, Lin et al. 2021).

    `set_forward_args` gives the matrix of the mixtures, a row for each filter that is left. Without one, or while all
    channels are active, it computes as a `DynamicConv2d`.

    Errors:
        NotImplementedError: groups other than one, or than depthwise, when a mutable is registered.

    Example:
        >>> from mutorch.mutables import SequentialMutableChannel
        >>> conv, width = FuseConv2d(3, 8, 1), SequentialMutableChannel(8)
        >>> conv.register_mutable_attr("out_channels", width)
        >>> width.current_choice = 4
        >>> conv.set_forward_args(conv.get_pooled_channel(1.0))
        >>> conv.weight.shape
        torch.Size([4, 3, 1, 1])
    """

    fusion: Tensor | None

    def _begin(self) -> None:
        super()._begin()
        self.__dict__["fusion"] = None

    def set_forward_args(self, choice: Tensor | None) -> None:
        """Mix filters by the rows of `choice`: shape (active out channels, all out channels)."""
        self.__dict__["fusion"] = choice

    def get_pooled_channel(self, tau: float) -> Tensor:
        """The mixtures of this moment: for each filter that stays, how alike each filter is to it.

        The filters that stay are as many as are active, those whose likenesses differ most from the others'.

        Args:
            tau: the temperature of the likenesses; small ones leave each filter as it is.
        """
        alike, score = self.likenesses(tau)
        outputs = self.mutable_out_channels
        count = len(alike) if outputs is None else outputs.activated_channels
        return alike[torch.topk(score, count, sorted=False).indices]

    def likenesses(self, tau: float) -> tuple[Tensor, Tensor]:
        """How alike each filter is to each: a row for each filter, whose sum is 1. And how little its row is like the others.

        Args:
            tau: see `get_pooled_channel`.

        Errors:
            ConfigError: a temperature that is not positive.
        """
        if not 0 < tau < math.inf:
            raise ConfigError(f"the temperature of fused filters must be a positive number, got {tau!r}")
        weight = self._parameters["weight"]
        assert weight is not None
        filters = weight.detach().flatten(1)
        alike = torch.softmax(-_distances(filters) / tau, dim=1)
        logs = torch.log(alike + 1e-7)
        return alike, (alike * (logs - logs.mean(dim=1))).sum(dim=1) / len(filters)

    def describe(self, state: DynamicState) -> None:
        groups, depthwise = self.__dict__["groups"], self.__dict__["in_channels"] == self.__dict__["out_channels"]
        if groups != 1 and not (depthwise and groups == self.__dict__["in_channels"]):
            raise NotImplementedError(
                f"filters of a convolution in {groups} groups cannot be fused; only depthwise ones can"
            )
        super().describe(state)
        outputs, inputs = self.extent("out_channels"), self.extent("in_channels")
        if outputs is not None:
            columns = ((1, inputs),) if inputs is not None and groups == 1 else ()
            for name in ("weight", "bias"):
                state.rules[name] = _Fused(self, outputs, columns if name == "weight" else (), state.rules.get(name))

    def extras(self) -> tuple[str, ...]:
        return (*super().extras(), "fusion")


def _distances(filters: Tensor) -> Tensor:
    """The Euclidean distances of all pairs of rows, by one matrix product: in double precision, which leaves enough of them."""
    rows = filters.double() if filters.device.type != "mps" else filters
    product = rows @ rows.T
    squares = product.diagonal()
    squared = squares[:, None] + squares[None] - 2 * product
    return squared.clamp(min=0).sqrt().fill_diagonal_(0).to(filters.dtype)


class _Fused:
    """Mixtures of all rows of a tensor."""

    def __init__(self, conv: FuseConv2d, rows: Extent, columns: Dims, unfused: object) -> None:
        self.conv, self.rows, self.columns, self.unfused = conv, rows, columns, unfused

    def read(self, name: str, whole: Tensor, dims: Dims, mode: Mode) -> Tensor:
        count, matrix = self.rows.count(), self.conv.fusion
        take = masked if mode == "mask" else cut
        if matrix is None or count == self.rows.size:
            return take(whole, dims) if self.unfused is None else self.unfused.read(name, whole, dims, mode)  # type: ignore[attr-defined]
        if tuple(matrix.shape) != (count, self.rows.size):
            raise StateError(
                f"the fusion matrix of {count} active and {self.rows.size} channels in all must be as large, got "
                f"{tuple(matrix.shape)}; compute it again after each choice"
            )
        part = take(whole, self.columns)
        fused = (matrix.to(part) @ part.flatten(1) if part.dim() > 1 else matrix.to(part) @ part).view(
            count, *part.shape[1:]
        )
        if mode == "mask":
            places = torch.from_numpy(self.rows.alive()).nonzero().flatten().to(part.device)
            return torch.zeros_like(whole).index_copy(0, places, fused)
        return fused

    def elements(self, name: str, index: Tensor, dims: Dims) -> Tensor:
        """All rows where they are mixed."""
        if self.conv.fusion is None or self.rows.count() == self.rows.size:
            return self.read(name, index, dims, "slice")
        return cut(index, self.columns)
