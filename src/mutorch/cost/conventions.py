"""Counting conventions: what counts beside the multiply-adds of convolutions and matrix products.

`"mac"` counts nothing else, and is what `torch.utils.flop_counter` says divided by two. `"mmr"` is the convention of
MMRazor's published figures: in addition the biases of convolutions, norms (one per element of the input, two if affine),
activations (one per element of the output) and pooling (one per element of the input), where they are modules.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import activation, batchnorm, conv, instancenorm, pooling

Numel = Callable[[Tensor], Any]
"""How many elements a tensor has: an integer, or an `Amount`."""


def mmr_extra(module: nn.Module, args: tuple[Any, ...], output: Any, numel: Numel = Tensor.numel) -> Any:
    """What one call of `module` itself adds to the multiply-adds under `"mmr"`, in operations, as `numel` counts them."""
    for kinds, rule in _RULES:
        if isinstance(module, kinds):
            return rule(module, args, output, numel)
    return 0


def _all(value: Any, numel: Numel) -> Any:
    if isinstance(value, Tensor):
        return numel(value)
    return sum(_all(item, numel) for item in value) if isinstance(value, tuple | list) else 0


def _norm(module: Any, args: tuple[Any, ...], output: Any, numel: Numel) -> Any:
    return _all(args[0], numel) * (2 if getattr(module, "affine", False) else 1)


def _conv(module: Any, args: tuple[Any, ...], output: Any, numel: Numel) -> Any:
    return 0 if module.bias is None else _all(output, numel)


def _of_input(module: Any, args: tuple[Any, ...], output: Any, numel: Numel) -> Any:
    return numel(args[0])


def _of_output(module: Any, args: tuple[Any, ...], output: Any, numel: Numel) -> Any:
    return _all(output, numel)


_RULES: list[tuple[tuple[type, ...], Callable[[Any, tuple[Any, ...], Any, Numel], Any]]] = [
    ((conv._ConvNd,), _conv),
    ((batchnorm._NormBase, instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm), _norm),
    ((activation.ReLU, activation.PReLU, activation.ELU, activation.LeakyReLU, activation.ReLU6), _of_output),
    (
        (
            pooling._MaxPoolNd,
            pooling._AvgPoolNd,
            pooling._AdaptiveAvgPoolNd,
            pooling._AdaptiveMaxPoolNd,
        ),
        _of_input,
    ),
]
