"""A batch norm that scales channels by how probable it is that they stay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .norm import DynamicBatchNorm2d

Parameters = Tensor | list[Tensor | None] | None
Groups = tuple[int, int, int] | list[tuple[int, int, int]] | None


class DMCPBatchNorm2d(DynamicBatchNorm2d):
    """A `DynamicBatchNorm2d` whose output is scaled by probabilities while these are learned (DMCP, Guo et al. 2020).

    Channels come in groups after a minimum that always stays. Group `i` stays with probability
    `prod(exp(-max(a_j, 0)) for j <= i)`, where `a` is the architecture parameter.

    Example:
        >>> norm = DMCPBatchNorm2d(4).eval()
        >>> x = torch.ones(1, 4, 1, 1)
        >>> scaled = norm(x, torch.tensor([0.0, 10.0]), (1, 2, 2))  # groups of 1, 2 groups, 2 channels that stay
        >>> (scaled / norm(x)).flatten().round(decimals=3).tolist()
        [1.0, 1.0, 1.0, 0.0]
    """

    arch_param: Parameters
    arch_attr: Groups

    def _begin(self) -> None:
        super()._begin()
        self.set_forward_args(None, None)

    def set_forward_args(self, arch_param: Parameters, arch_attr: Groups) -> None:
        """Scale from now on; `None` stops it.

        Args:
            arch_param: one number for each group. A list, where channels of several units follow each other, as after a
                concatenation; `None` in it for channels that always stay.
            arch_attr: size of a group, number of groups, channels before the first group; as many as parameters.
        """
        # Past nn.Module.__setattr__: the parameter belongs to the mutator.
        self.__dict__["arch_param"], self.__dict__["arch_attr"] = arch_param, arch_attr

    def forward(self, input: Tensor, arch_param: Parameters = None, arch_attr: Groups = None) -> Any:
        out = super().forward(input)
        parameter = self.arch_param if arch_param is None else arch_param
        attr = self.arch_attr if arch_attr is None else arch_attr
        if parameter is None or attr is None:
            return out
        if isinstance(parameter, list):
            parts = [_scale(one, groups, out) for one, groups in zip(parameter, attr, strict=True)]
            scale = torch.cat(parts)
        else:
            scale = _scale(parameter, attr, out)
        extent = self.extent("num_features")
        if out.shape[1] < len(scale):
            scale = scale[: out.shape[1]] if extent is None else extent.take(scale, 0)
        return out * scale.to(out.dtype).view(1, -1, 1, 1)

    def extras(self) -> tuple[str, ...]:
        return (*super().extras(), "arch_param", "arch_attr")


def _scale(parameter: Tensor | None, groups: Any, out: Tensor) -> Tensor:
    """How probable each channel of a unit is."""
    size, number, least = groups
    if parameter is None:
        return out.new_ones(size * number + least)
    kept = torch.exp(-parameter[:number].clamp(min=0)).cumprod(0).repeat_interleave(size)
    return torch.cat([kept.new_ones(least), kept])
