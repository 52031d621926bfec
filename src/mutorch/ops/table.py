"""Which dynamic op stands for which torch class."""

from torch import nn

from mutorch.errors import RegistryError

from .conv import (
    DynamicConv1d,
    DynamicConv2d,
    DynamicConv3d,
    DynamicConvTranspose1d,
    DynamicConvTranspose2d,
    DynamicConvTranspose3d,
)
from .linear import DynamicEmbedding, DynamicLinear, DynamicPReLU
from .norm import (
    DynamicBatchNorm1d,
    DynamicBatchNorm2d,
    DynamicBatchNorm3d,
    DynamicGroupNorm,
    DynamicInstanceNorm1d,
    DynamicInstanceNorm2d,
    DynamicInstanceNorm3d,
    DynamicLayerNorm,
    DynamicSyncBatchNorm,
)
from .op import DynamicOp

DYNAMIC_OPS: dict[type[nn.Module], type[DynamicOp]] = {
    nn.Conv1d: DynamicConv1d,
    nn.Conv2d: DynamicConv2d,
    nn.Conv3d: DynamicConv3d,
    nn.ConvTranspose1d: DynamicConvTranspose1d,
    nn.ConvTranspose2d: DynamicConvTranspose2d,
    nn.ConvTranspose3d: DynamicConvTranspose3d,
    nn.Linear: DynamicLinear,
    nn.Embedding: DynamicEmbedding,
    nn.PReLU: DynamicPReLU,
    nn.BatchNorm1d: DynamicBatchNorm1d,
    nn.BatchNorm2d: DynamicBatchNorm2d,
    nn.BatchNorm3d: DynamicBatchNorm3d,
    nn.SyncBatchNorm: DynamicSyncBatchNorm,
    nn.LayerNorm: DynamicLayerNorm,
    nn.GroupNorm: DynamicGroupNorm,
    nn.InstanceNorm1d: DynamicInstanceNorm1d,
    nn.InstanceNorm2d: DynamicInstanceNorm2d,
    nn.InstanceNorm3d: DynamicInstanceNorm3d,
}
"""Static class to dynamic op; units convert modules of exactly these classes."""


def register_op(static: type[nn.Module], dynamic: type[DynamicOp]) -> None:
    """Let units convert modules of class `static` to `dynamic`.

    Errors:
        RegistryError: the class has a dynamic op already.
        TypeError: no dynamic op of that class.

    Example:
        >>> register_op(nn.Linear, DYNAMIC_OPS[nn.Linear])
        Traceback (most recent call last):
        ...
        mutorch.errors.RegistryError: Linear has the dynamic op DynamicLinear already; ...
    """
    if not (isinstance(dynamic, type) and issubclass(dynamic, DynamicOp) and dynamic.static_class is static):
        raise TypeError(f"a dynamic op of {static.__name__} is a DynamicOp with static_class = {static.__name__}")
    if static in DYNAMIC_OPS:
        raise RegistryError(
            f"{static.__name__} has the dynamic op {DYNAMIC_OPS[static].__name__} already; subclass {static.__name__} for "
            "modules that need another one"
        )
    DYNAMIC_OPS[static] = dynamic
