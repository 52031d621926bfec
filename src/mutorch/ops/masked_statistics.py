"""Averages over channels when removed channels are zeros instead of absent."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .extent import Extent

Place = tuple[str, int, int, int]
"""Where a function of torch averages: its name, how many dimensions its tensor has, along which one, and the size of that.

`("multi_head_attention_forward", 0, 0, head_dim)` is the width of a head inside torch's own attention.
"""


class MaskedStatistics(TorchFunctionMode):
    """Within it, norms and means along a searchable dimension count the active channels only.

    Layer norm, RMS norm, group norm, softmax, the scale of an attention, `mean` and `var` are computed as on the active
    channels alone, and give zeros in the others' places; everything else runs as it is.

    Args:
        extents: what is active along the dimensions.
    """

    def __init__(self, extents: Mapping[Place, Extent]) -> None:
        super().__init__()
        self.extents = extents

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = _RULES.get(getattr(func, "__name__", ""))
        result = rule(self, args, kwargs) if rule is not None else NotImplemented
        return func(*args, **kwargs) if result is NotImplemented else result

    def mask(self, function: str, x: Tensor, dim: int) -> Tensor | None:
        """The mask of a dimension of `x`, to be multiplied with it; `None` where nothing decides it."""
        place = dim % x.dim() if x.dim() else 0
        extent = self.extents.get((function, x.dim(), place, int(x.shape[dim]))) if x.dim() else None
        if extent is None:
            return None
        return extent.mask(x.device).to(x.dtype).view(-1, *[1] * (x.dim() - place - 1))


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, default: Any = None) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def _layer_norm(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _argument(args, kwargs, 0, "input")
    shape = _argument(args, kwargs, 1, "normalized_shape")
    mask = mode.mask("layer_norm", x, -1) if len(shape) == 1 else None
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
    mask = mode.mask("rms_norm", x, -1) if len(shape) == 1 else None
    if mask is None:
        return NotImplemented
    weight, eps = _argument(args, kwargs, 2, "weight"), _argument(args, kwargs, 3, "eps")
    x = x * mask
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    out = x * torch.rsqrt(x.square().sum(-1, keepdim=True) / mask.sum() + eps)
    return out if weight is None else out * weight


def _group_norm(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, groups = _argument(args, kwargs, 0, "input"), int(_argument(args, kwargs, 1, "num_groups"))
    mask = mode.mask("group_norm", x, 1)
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


def _masked(mode: MaskedStatistics, function: str, x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor] | None:
    """`x` with zeros, and how many of what is reduced are active."""
    count, found = torch.ones((), dtype=x.dtype, device=x.device), False
    for dim in dims:
        mask = mode.mask(function, x, dim)
        found = found or mask is not None
        count = count * (x.shape[dim] if mask is None else mask.sum())
        x = x if mask is None else x * mask
    return (x, count) if found else None


def _mean(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _argument(args, kwargs, 0, "input")
    x = x.to(kwargs["dtype"]) if kwargs.get("dtype") is not None else x
    dims = _dims(x, _argument(args, kwargs, 1, "dim"))
    masked = _masked(mode, "mean", x, dims)
    if masked is None:
        return NotImplemented
    return masked[0].sum(dims, keepdim=bool(_argument(args, kwargs, 2, "keepdim", False))) / masked[1]


def _sum(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Removed channels are zero after a layer, and need not be after a sigmoid."""
    x, dim = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "dim")
    masked = _masked(mode, "sum", x, _dims(x, dim))
    if masked is None:
        return NotImplemented
    keepdim = bool(_argument(args, kwargs, 2, "keepdim", False))
    return masked[0].sum(_dims(x, dim), keepdim=keepdim, dtype=kwargs.get("dtype"))


def _var(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x = _argument(args, kwargs, 0, "input")
    given = _argument(args, kwargs, 1, "dim")
    unbiased = given if isinstance(given, bool) else _argument(args, kwargs, 2, "unbiased", True)
    dims = _dims(x, None if isinstance(given, bool) else given)
    masked = _masked(mode, "var", x, dims)
    if masked is None:
        return NotImplemented
    correction = kwargs.get("correction", 1 if unbiased else 0)
    zeroed, count = masked
    centered, _ = _masked(mode, "var", zeroed - zeroed.sum(dims, keepdim=True) / count, dims) or (zeroed, count)
    keepdim = bool(_argument(args, kwargs, 3, "keepdim", False))
    return centered.square().sum(dims, keepdim=keepdim) / (count - correction)


def _attention(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The scale is one over the root of the active width of a head."""
    query = _argument(args, kwargs, 0, "query")
    mask = mode.mask("scaled_dot_product_attention", query, -1) if kwargs.get("scale") is None else None
    if mask is None:
        return NotImplemented
    width = query.shape[-1]
    kwargs = {**kwargs, "scale": 1 / math.sqrt(width)}
    scaled = query * mask * torch.sqrt(width / mask.sum())
    if args:
        args = (scaled, *args[1:])
    else:
        kwargs["query"] = scaled
    return functional.scaled_dot_product_attention(*args, **kwargs)


def _multi_head(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As `_attention`, for what `nn.MultiheadAttention` calls: the weights of the query are scaled instead."""
    width, heads = int(args[3]), int(args[4])
    extent = mode.extents.get(("multi_head_attention_forward", 0, 0, width // heads))
    if extent is None:
        return NotImplemented
    weight, bias = args[5], args[6]
    active = extent.mask(args[0].device).to(args[0].dtype).sum()
    factor = torch.sqrt(width // heads / active)
    if weight is not None:
        weight = torch.cat([weight[:width] * factor, weight[width:]])
    else:
        kwargs = {**kwargs, "q_proj_weight": kwargs["q_proj_weight"] * factor}
    if bias is not None:
        bias = torch.cat([bias[:width] * factor, bias[width:]])
    args = (*args[:5], weight, bias, *args[7:])
    return functional.multi_head_attention_forward(*args, **kwargs)


def _softmax(mode: MaskedStatistics, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, dim = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "dim")
    mask = mode.mask("softmax", x, dim) if isinstance(dim, int) else None
    if mask is None:
        return NotImplemented
    logits = x.masked_fill(mask == 0, float("-inf"))
    return torch.exp(logits.log_softmax(dim, dtype=kwargs.get("dtype"))) * mask


_RULES: dict[str, Callable[[MaskedStatistics, tuple[Any, ...], dict[str, Any]], Any]] = {
    functional.layer_norm.__name__: _layer_norm,
    functional.group_norm.__name__: _group_norm,
    "rms_norm": _rms_norm,
    "softmax": _softmax,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head,
    "mean": _mean,
    "sum": _sum,
    "var": _var,
}
