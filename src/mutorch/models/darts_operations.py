"""The operations that DARTS chooses from (arXiv 1806.09055, section 3.1)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn

from mutorch.errors import ChoiceError, nearest

from .act_conv_norm import act_conv_norm
from .conv_norm_act import BATCH_NORM, RELU, Config, build_norm
from .drop_path import DropPath
from .factorized_reduce import FactorizedReduce

KERNEL_SIZES = (3, 5)
DROP_PATH_RATE = 0.1
"""How often an operation with `use_drop_path` is left out in training; `set_drop_path_rate_` changes it."""


class DartsZero(nn.Module):
    """Nothing: zeros of the input's shape, every `stride`-th pixel of it.

    Zero times the input rather than new zeros: every operation before it stays in the graph, which DDP asks for.

    Errors:
        ChoiceError: out_channels other than in_channels.

    Example:
        >>> import torch
        >>> DartsZero(16, 16, stride=2)(torch.ones(1, 16, 8, 8)).abs().sum(), DartsZero(16, 16, stride=2)
        (tensor(0.), DartsZero(stride=2))
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        _check_width_stays(self, in_channels, out_channels)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return (x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]) * 0

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class DartsSkipConnect(nn.Module):
    """Its input; at stride 2 `FactorizedReduce`.

    Args:
        use_drop_path: leave the reduction out of a tenth of the samples in training; the plain input is never left out.
        norm_cfg, act_cfg: see `conv_norm_act`.

    Errors:
        ChoiceError: a stride other than 1 and 2; stride 1 with another width.

    Example:
        >>> DartsSkipConnect(16, 16), sum(p.numel() for p in DartsSkipConnect(16, 16, stride=2).parameters())
        (DartsSkipConnect(), 288)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        use_drop_path: bool = False,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config = RELU,
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ChoiceError(f"DartsSkipConnect has no stride {stride!r}; {nearest(stride, (1, 2))}")
        if stride == 1:
            _check_width_stays(self, in_channels, out_channels)
            self.reduce = None
            return
        reduce = FactorizedReduce(in_channels, out_channels, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.reduce = nn.Sequential(reduce, _drop_path(use_drop_path))

    def forward(self, x: Tensor) -> Tensor:
        return x if self.reduce is None else self.reduce(x)


class DartsPoolBN(nn.Sequential):
    """3x3 pooling (children `pool`, `bn`, `drop_path`); padding does not count in averages.

    The published networks were searched with the norm and without its affine part, and trained with none at all:
    `norm_cfg=None`. MMRazor keeps it in both.

    Args:
        pool_type: `"max"` or `"avg"`.
        use_drop_path: leave the operation out of a tenth of the samples in training.
        norm_cfg: see `conv_norm_act`; `None` for none.

    Errors:
        ChoiceError: another pool_type; out_channels other than in_channels.

    Example:
        >>> [sum(p.numel() for p in DartsPoolBN(16, 16, "max", norm_cfg=n).parameters()) for n in (dict(type="BN"), None)]
        [32, 0]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        pool_type: Literal["max", "avg"],
        stride: int = 1,
        kernel_size: int = 3,
        *,
        use_drop_path: bool = False,
        norm_cfg: Config | None = BATCH_NORM,
    ) -> None:
        super().__init__()
        if pool_type not in _POOLS:
            raise ChoiceError(f"DartsPoolBN has no pool_type {pool_type!r}; {nearest(pool_type, _POOLS)}")
        _check_width_stays(self, in_channels, out_channels)
        options = {} if pool_type == "max" else {"count_include_pad": False}
        self.pool = _POOLS[pool_type](kernel_size, stride, padding=kernel_size // 2, **options)
        if norm_cfg is not None:
            self.add_module(*build_norm(norm_cfg, out_channels))
        self.drop_path = _drop_path(use_drop_path)


class DartsDilConv(nn.Sequential):
    """Activation, depthwise convolution with dilation 2, 1x1 convolution, norm (children `conv`, `drop_path`).

    Args:
        use_drop_path: leave the operation out of a tenth of the samples in training.
        norm_cfg, act_cfg: see `conv_norm_act`.

    Errors:
        ChoiceError: a kernel size other than 3 and 5.

    Example:
        >>> sum(p.numel() for p in DartsDilConv(16, 16, kernel_size=5).parameters())
        688
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        use_drop_path: bool = False,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config = RELU,
    ) -> None:
        super().__init__()
        _check_kernel_size(self, kernel_size)
        self.conv = act_conv_norm(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            dilation=2,
            separable=True,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )
        self.drop_path = _drop_path(use_drop_path)


class DartsSepConv(nn.Sequential):
    """Activation, depthwise convolution, 1x1 convolution, norm, twice (children `conv1`, `conv2`, `drop_path`).

    Arguments and errors are those of `DartsDilConv`; the stride is the first one's.

    Example:
        >>> sum(p.numel() for p in DartsSepConv(16, 16, kernel_size=3).parameters())
        864
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        use_drop_path: bool = False,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config = RELU,
    ) -> None:
        super().__init__()
        _check_kernel_size(self, kernel_size)
        self.conv1 = act_conv_norm(
            in_channels, in_channels, kernel_size, stride, separable=True, norm_cfg=norm_cfg, act_cfg=act_cfg
        )
        self.conv2 = act_conv_norm(
            in_channels, out_channels, kernel_size, separable=True, norm_cfg=norm_cfg, act_cfg=act_cfg
        )
        self.drop_path = _drop_path(use_drop_path)


_POOLS: Mapping[str, type[nn.MaxPool2d] | type[nn.AvgPool2d]] = MappingProxyType(
    {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
)


def _drop_path(used: bool) -> DropPath:
    return DropPath(DROP_PATH_RATE if used else 0.0)


def _check_width_stays(operation: nn.Module, in_channels: int, out_channels: int) -> None:
    if in_channels != out_channels:
        raise ChoiceError(
            f"{type(operation).__name__} keeps its channels here; out_channels must be {in_channels} as in_channels, "
            f"got {out_channels}"
        )


def _check_kernel_size(operation: nn.Module, kernel_size: int) -> None:
    if kernel_size not in KERNEL_SIZES:
        raise ChoiceError(
            f"{type(operation).__name__} has no kernel_size {kernel_size!r}; {nearest(kernel_size, KERNEL_SIZES)}"
        )
