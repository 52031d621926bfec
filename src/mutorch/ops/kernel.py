"""How a convolution computes with a smaller kernel than its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mutorch.errors import ChoiceError

from .dynamic import Dims, DynamicState, FollowedSize, Mode, TensorRule, cut, masked
from .extent import Extent, Selection

_MATRIX = "trans_matrix_"


class CenterExtent(Extent):
    """The middle of one dimension of a kernel, as wide as a value says.

    Args:
        size: the whole dimension, odd.
        value: a mutable whose choice is the width, odd.
    """

    def __init__(self, size: int, value: Any) -> None:
        super().__init__(size, (), ())
        self.value = value

    def count(self) -> int:
        """The width now."""
        return int(self.value.current_choice)

    def start(self) -> int:
        """Where the middle begins."""
        return self.size // 2 - self.count() // 2

    def selection(self) -> Selection:
        """The positions of the middle; `None` for all."""
        count = self.count()
        return None if count == self.size else torch.arange(self.start(), self.start() + count)

    def take(self, tensor: Tensor, dim: int) -> Tensor:
        """The middle, a view."""
        return tensor if self.count() == self.size else tensor.narrow(dim, self.start(), self.count())

    def alive(self) -> NDArray[np.bool_]:
        """Which positions are in the middle."""
        alive = np.zeros(self.size, dtype=np.bool_)
        alive[self.start() : self.start() + self.count()] = True
        return alive

    def mask(self, device: torch.device) -> Tensor:
        """A float tensor with 1 in the middle."""
        away = (torch.arange(self.size, device=device) - self.size // 2).abs()
        return (away <= self.count() // 2).float()


class KernelRule(ABC):
    """What a convolution does with a kernel size below its own; a part of `DynamicConv2d` and the others."""

    def prepare(self, module: nn.Module, sizes: list[int]) -> None:  # noqa: B027  (most learn nothing)
        """Give the convolution what the rule learns; called when a kernel size is registered.

        Args:
            sizes: the kernel sizes, ascending; the last is the convolution's own.
        """

    @abstractmethod
    def describe(self, module: nn.Module, state: DynamicState, value: Any) -> None:
        """Let the weight follow `value`; what follows channels is in `state` already."""

    def parameters_of(self, module: nn.Module) -> tuple[str, ...]:
        """The names of the parameters that it learns."""
        return ()


class CenterCrop(KernelRule):
    """The middle of the kernel (BigNAS, Yu et al. 2020, section 3.1)."""

    def describe(self, module: nn.Module, state: DynamicState, value: Any) -> None:
        """Let the weight follow `value`; what follows channels is in `state` already."""
        whole = module._parameters["weight"]
        assert whole is not None
        middle = tuple((dim, CenterExtent(int(whole.shape[dim]), value)) for dim in range(2, whole.dim()))
        state.tensors["weight"] = (*state.tensors.get("weight", ()), *middle)
        if "weight" in state.rules:
            state.rules["weight"] = _Cropped(state.rules["weight"])


class _Cropped:
    """What another rule gives, cropped."""

    def __init__(self, inner: TensorRule) -> None:
        self.inner = inner

    def read(self, name: str, whole: Tensor, dims: Dims, mode: Mode) -> Tensor:
        part: Tensor = self.inner.read(name, whole, dims, mode)
        of_kernel = tuple((dim, extent) for dim, extent in dims if dim >= 2)
        return masked(part, of_kernel) if mode == "mask" else cut(part, of_kernel)


class LearnedTransform(KernelRule):
    """The middle of the next larger kernel, through a learned matrix (Once-for-All, Cai et al. 2020, section 3.3).

    The matrices are parameters of the convolution, `trans_matrix_7to5` and so on, each the identity at first: until they
    are trained, this is `CenterCrop`. All filters of a convolution share them.
    """

    def prepare(self, module: nn.Module, sizes: list[int]) -> None:
        """Add a matrix for each step down."""
        weight = module._parameters["weight"]
        assert weight is not None
        for small, large in zip(sizes, sizes[1:], strict=False):
            name = _matrix(large, small)
            if name not in module._parameters:
                entries = small ** (weight.dim() - 2)
                matrix = torch.eye(entries, device=weight.device, dtype=weight.dtype)
                module.register_parameter(name, nn.Parameter(matrix))

    def describe(self, module: nn.Module, state: DynamicState, value: Any) -> None:
        """Let the weight follow `value`; what follows channels is in `state` already."""
        state.tensors.setdefault("weight", ())
        state.rules["weight"] = _Transformed(module, value, state.rules.get("weight"))

    def parameters_of(self, module: nn.Module) -> tuple[str, ...]:
        """The matrices."""
        return tuple(name for name in module._parameters if name.startswith(_MATRIX))


class _Transformed:
    """The active channels of a weight, with their kernels taken down to the current size."""

    def __init__(self, module: nn.Module, value: Any, inner: TensorRule | None) -> None:
        self.module, self.value, self.inner = module, value, inner

    def read(self, name: str, whole: Tensor, dims: Dims, mode: Mode) -> Tensor:
        part, size = self._of_channels(name, whole, dims, mode), int(whole.shape[-1])
        for small in self._steps(size):
            large = int(part.shape[-1])
            matrix = self.module._parameters[_matrix(large, small)]
            assert matrix is not None
            middle = _middle(part, small)
            part = F.linear(middle.flatten(2), matrix).view(middle.shape)
        if mode == "mask":
            edge = (size - int(part.shape[-1])) // 2
            part = F.pad(part, [edge] * 2 * (whole.dim() - 2))
        return part

    def elements(self, name: str, index: Tensor, dims: Dims) -> Tensor:
        """What goes into the first matrix."""
        part = self._of_channels(name, index, dims, "slice")
        steps = self._steps(int(index.shape[-1]))
        return _middle(part, steps[0]) if steps else part

    def idle(self) -> set[str]:
        """The matrices of sizes below the current one."""
        sizes: list[int] = self.module.__dict__["kernel_size_list"]
        needed, large = set(), sizes[-1]
        for small in self._steps(large):
            needed.add(_matrix(large, small))
            large = small
        return {name for name in self.module._parameters if name.startswith(_MATRIX)} - needed

    def _of_channels(self, name: str, whole: Tensor, dims: Dims, mode: Mode) -> Tensor:
        if self.inner is None:
            return masked(whole, dims) if mode == "mask" else cut(whole, dims)
        part: Tensor = self.inner.read(name, whole, dims, mode)
        return part

    def _steps(self, size: int) -> list[int]:
        """The sizes down to the current one."""
        sizes: list[int] = self.module.__dict__["kernel_size_list"]
        current = int(self.value.current_choice)
        return [step for step in reversed(sizes) if current <= step < size]


def _matrix(large: int, small: int) -> str:
    return f"{_MATRIX}{large}to{small}"


def _middle(part: Tensor, size: int) -> Tensor:
    for dim in range(2, part.dim()):
        part = part.narrow(dim, int(part.shape[dim]) // 2 - size // 2, size)
    return part


@dataclass(frozen=True, slots=True)
class FollowedKernel(FollowedSize):
    """One entry of `kernel_size` or `padding`.

    Attributes:
        whole: the entry at the largest kernel.
        per: how much it shrinks for every two positions that the kernel loses.
        largest: the largest kernel size.
    """

    mutable: Any = None
    whole: int = 0
    per: int = 0
    largest: int = 0

    def value(self) -> int:
        """The entry now."""
        return self.whole - (self.largest - int(self.mutable.current_choice)) // 2 * self.per


def kernel_sizes(value: Any) -> list[int]:
    """The kernel sizes that a mutable may choose, ascending."""
    return sorted(int(size) for size in value.choices)


def check_kernel_sizes(value: Any, kernel_size: tuple[int, ...]) -> None:
    """Nothing, if a mutable can decide the kernel size of a convolution.

    Errors:
        ChoiceError: no choices, even ones, or a largest that is not the convolution's own (also `ValueError`).
    """
    if not getattr(value, "choices", None):
        raise ChoiceError(f"a kernel size is decided by a mutable with choices, got {value!r}")
    sizes = kernel_sizes(value)
    if any(size != sizes[-1] for size in kernel_size):
        raise ChoiceError(f"the largest of the kernel sizes {sizes} must be that of the convolution, {kernel_size}")
    if any(size % 2 == 0 or size < 1 for size in sizes):
        raise ChoiceError(f"kernel sizes must be odd, got {sizes}")
