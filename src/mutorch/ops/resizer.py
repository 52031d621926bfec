"""Inputs of a searchable size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mutorch.errors import ChoiceError

from .op import Attr, DynamicOp


class InputResizer(nn.Module):
    """Images in another size.

    Args:
        interpolation_type, align_corners, scale_factor: as in `torch.nn.functional.interpolate`.
        size: the size of the output; the input's unless one is given here or to `forward`.
    """

    def __init__(
        self,
        interpolation_type: str = "bicubic",
        align_corners: bool | None = False,
        scale_factor: float | Sequence[float] | None = None,
        size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.interpolation_type = interpolation_type
        self.align_corners = align_corners
        self.scale_factor = scale_factor
        self.size = size

    def forward(self, x: Tensor, size: int | Sequence[int] | None = None) -> Tensor:
        size = self.size if size is None else size
        if size is None and self.scale_factor is None:
            return x
        scale: Any = self.scale_factor if size is None else None
        target: Any = size if size is None or isinstance(size, int) else tuple(size)
        return F.interpolate(x, target, scale, mode=self.interpolation_type, align_corners=self.align_corners)


class DynamicInputResizer(DynamicOp, InputResizer):
    """An `InputResizer` whose `shape` can be decided.

    Example:
        >>> import torch
        >>> from mutorch.mutables import OneShotMutableValue
        >>> resize, shape = DynamicInputResizer(), OneShotMutableValue([[16, 16], [32, 32]])
        >>> resize.register_mutable_attr("shape", shape)
        >>> shape.current_choice = [16, 16]
        >>> resize(torch.zeros(1, 3, 20, 20)).shape
        torch.Size([1, 3, 16, 16])
    """

    static_class = InputResizer
    attrs = {"shape": Attr((), "size", channels=False)}

    def check_mutable_attr(self, name: str, mutable: Any) -> None:
        super().check_mutable_attr(name, mutable)
        for shape in getattr(mutable, "choices", None) or [mutable.current_choice]:
            if not isinstance(shape, list | tuple) or not 1 <= len(shape) <= 3:
                raise ChoiceError(f"a shape is a list of one to three sizes, got {shape!r}")
