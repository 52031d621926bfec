"""Averages over channels when removed channels are zeros instead of absent."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .extent import Extent


class MaskedStatistics(TorchFunctionMode):
    """Within it, norms and means along a searchable dimension count the active channels only.

    Layer norm, RMS norm, group norm, `mean` and `var` are computed as on the active channels alone, and give zeros in the
    others' places; everything else runs as it is.

    Args:
        extents: of the dimensions; a reduction is along one of them where its size fits.
    """

    def __init__(self, extents: Sequence[Extent]) -> None:
        super().__init__()
        self._by_size = {extent.size: extent for extent in extents}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(getattr(func, "__name__", ""))
        result = rule(self, args, kwargs) if rule is not None else NotImplemented
        return func(*args, **kwargs) if result is NotImplemented else result

    def mask(self, x: Tensor, dim: int) -> Tensor | None:
        """The mask of a dimension of `x`, to be multiplied with it; `None` where nothing decides it."""
        extent = self._by_size.get(int(x.shape[dim]))
        if extent is None:
            return None
        place = dim % x.dim()
        return extent.mask(x.device).to(x.dtype).view(-1, *[1] * (x.dim() - place - 1))


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, default: Any = None) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def _layer_norm(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _argument(args, kwargs, 0, "input")
    shape = _argument(args, kwargs, 1, "normalized_shape")
    mask = mode.mask(x, -1) if len(shape) == 1 else None
    if mask is None:
        return NotImplemented
    weight, bias = _argument(args, kwargs, 2, "weight"), _argument(args, kwargs, 3, "bias")
    x = x * mask
    count = mask.sum()
    centered = (x - x.sum(-1, keepdim=True) / count) * mask
    variance = centered.square().sum(-1, keepdim=True) / count
    out = centered * torch.rsqrt(variance + _argument(args, kwargs, 4, "eps", 1e-5))
    out = out if weight is None else out * weight
    return out if bias is None else out + bias * mask


def _rms_norm(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _argument(args, kwargs, 0, "input")
    shape = _argument(args, kwargs, 1, "normalized_shape")
    mask = mode.mask(x, -1) if len(shape) == 1 else None
    if mask is None:
        return NotImplemented
    weight, eps = _argument(args, kwargs, 2, "weight"), _argument(args, kwargs, 3, "eps")
    x = x * mask
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    out = x * torch.rsqrt(x.square().sum(-1, keepdim=True) / mask.sum() + eps)
    return out if weight is None else out * weight


def _group_norm(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, groups = _argument(args, kwargs, 0, "input"), int(_argument(args, kwargs, 1, "num_groups"))
    mask = mode.mask(x, 1)
    if mask is None:
        return NotImplemented
    weight, bias = _argument(args, kwargs, 2, "weight"), _argument(args, kwargs, 3, "bias")
    shape = x.shape
    x = (x * mask).reshape(shape[0], groups, -1)
    mask = mask.expand(shape[1:]).reshape(groups, -1)
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    centered = (x - x.sum(-1, keepdim=True) / count) * mask
    variance = centered.square().sum(-1, keepdim=True) / count
    out = (centered * torch.rsqrt(variance + _argument(args, kwargs, 4, "eps", 1e-5))).reshape(shape)
    places = (-1, *[1] * (len(shape) - 2))
    out = out if weight is None else out * weight.view(places)
    return out if bias is None else out + bias.view(places)


def _dims(x: Tensor, dim: Any) -> list[int]:
    if dim is None:
        return list(range(x.dim()))
    return [int(one) % x.dim() for one in (dim if isinstance(dim, tuple | list) else [dim])]


def _masked(mode: MaskedStatistics, x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor] | None:
    """`x` with zeros, and how many of what is reduced are active."""
    count, found = torch.ones((), dtype=x.dtype, device=x.device), False
    for dim in dims:
        mask = mode.mask(x, dim)
        found = found or mask is not None
        count = count * (x.shape[dim] if mask is None else mask.sum())
        x = x if mask is None else x * mask
    return (x, count) if found else None


def _mean(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _argument(args, kwargs, 0, "input")
    dims = _dims(x, _argument(args, kwargs, 1, "dim"))
    masked = _masked(mode, x, dims)
    if masked is None:
        return NotImplemented
    return masked[0].sum(dims, keepdim=bool(_argument(args, kwargs, 2, "keepdim", False))) / masked[1]


def _var(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _argument(args, kwargs, 0, "input")
    given = _argument(args, kwargs, 1, "dim")
    if isinstance(given, bool):
        return NotImplemented
    dims = _dims(x, given)
    masked = _masked(mode, x, dims)
    if masked is None:
        return NotImplemented
    correction = kwargs.get("correction", 1 if kwargs.get("unbiased", True) else 0)
    zeroed, count = masked
    centered, _ = _masked(mode, zeroed - zeroed.sum(dims, keepdim=True) / count, dims) or (zeroed, count)
    return centered.square().sum(dims, keepdim=bool(kwargs.get("keepdim", False))) / (count - correction)


def _attention(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The scale is one over the root of the active width of a head."""
    query = _argument(args, kwargs, 0, "query")
    mask = mode.mask(query, -1) if kwargs.get("scale") is None else None
    if mask is None:
        return NotImplemented
    query = query * mask * torch.sqrt(query.shape[-1] / mask.sum())
    return functional.scaled_dot_product_attention(query, *args[1:], **kwargs)


def _softmax(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, dim = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "dim")
    mask = mode.mask(x, dim) if isinstance(dim, int) else None
    if mask is None:
        return NotImplemented
    return torch.exp(x.masked_fill(mask == 0, float("-inf")).log_softmax(dim)) * mask


_RULES: dict[str, Callable[[MaskedStatistics, tuple[Any, ...], dict[str, Any]], Any]] = {
    functional.layer_norm.__name__: _layer_norm,
    functional.group_norm.__name__: _group_norm,
    "rms_norm": _rms_norm,
    "softmax": _softmax,
    "scaled_dot_product_attention": _attention,
    "mean": _mean,
    "var": _var,
}
