"""Rules of operations that compute across positions: contractions, norms, reductions, pooling."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from .dims import Dim, Labels
from .observer import Observer

Arguments = tuple[Any, ...]
Named = dict[str, Any]


def _broadcast(observer: Observer, labels: Labels, tensor: Tensor, out: list[Dim], shape: list[int], what: str) -> None:
    """Let a tensor that is added to the result keep what the result keeps."""
    for back in range(1, tensor.dim() + 1):
        if int(tensor.shape[-back]) == shape[-back] != 1:
            out[-back] = observer.unify(out[-back], labels[-back], what)


# ---- products ----------------------------------------------------------------------------------------------------------


def _product(observer: Observer, a: Tensor, b: Tensor, out: Tensor, added: Tensor | None = None) -> Labels:
    """`(..., m, k)` times `(..., k, n)`; the batch is common."""
    left, right = observer.labels(a), observer.labels(b)
    observer.unify(left[-1], right[-2], "a matrix product")
    batch = [observer.unify(x, y, "a batched matrix product") for x, y in zip(left[:-2], right[:-2], strict=True)]
    result = [*batch, left[-2], right[-1]]
    if added is not None:
        _broadcast(observer, observer.labels(added), added, result, [int(s) for s in out.shape], "the bias")
    return tuple(result)


def _mm(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    return _product(observer, args[0], args[1], out)


def _addmm(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    return _product(observer, args[1], args[2], out, args[0])


def _grouped_mm(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    """Rows of the first matrix times one of several second ones: a mixture of experts."""
    left, right = observer.labels(args[0]), observer.labels(args[1])
    observer.freeze([*left[:-1], *right[:-2]], "the experts of a grouped product")
    observer.unify(left[-1], right[-2], "a grouped product")
    return (*[()] * (out.dim() - 1), right[-1])


def _mv(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    left, right = observer.labels(args[0]), observer.labels(args[1])
    observer.unify(left[-1], right[0], "a matrix product")
    return left[:1]


def _dot(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    observer.unify(observer.labels(args[0])[0], observer.labels(args[1])[0], "a dot product")
    return ()


def _trilinear(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    """The product of three tensors, each given dimensions where it has none, summed along some."""
    found: dict[int, Dim] = {}
    for x, added in zip(args[:3], args[3:6], strict=True):
        own = [number for number in range(x.dim() + len(added)) if number not in added]
        for number, dim in zip(own, observer.labels(x), strict=True):
            found[number] = observer.unify(found[number], dim, "a bilinear layer") if number in found else dim
    return tuple(found[number] for number in sorted(found) if number not in args[6])


def _linear(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    x, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    left, right = observer.labels(x), observer.labels(weight)
    observer.unify(left[-1], right[1], "a matrix product")
    result = [*left[:-1], right[0]]
    if bias is not None:
        _broadcast(observer, observer.labels(bias), bias, result, [int(s) for s in out.shape], "the bias")
    return tuple(result)


def _convolution(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    x, weight, bias = args[0], args[1], args[2]
    transposed, groups = bool(args[6]), int(args[8])
    inputs, weights = observer.labels(x), observer.labels(weight)
    places = _positions(observer, inputs, weight, args, out)
    observer.freeze(weights[2:], "the kernel of a convolution")
    channels = int(x.shape[1])
    if groups == 1:
        observer.unify(inputs[1], weights[0 if transposed else 1], "the input of a convolution")
        made = weights[1 if transposed else 0]
    else:
        made = _grouped(observer, inputs[1], weights, channels, out, groups, transposed)
    if bias is not None:
        made = observer.unify(made, observer.labels(bias)[0], "the bias")
    return (inputs[0], made, *places)


def _positions(observer: Observer, inputs: Labels, weight: Tensor, args: Arguments, out: Tensor) -> list[Dim]:
    """Where a convolution slides; along a dimension where its kernel is one position wide, nothing is mixed."""
    places: list[Dim] = []
    for number, dim in enumerate(inputs[2:]):
        stride, padding = (args[i][number if len(args[i]) > 1 else 0] for i in (3, 4))
        if int(weight.shape[2 + number]) == 1 and int(stride) == 1 and int(padding) == 0 and not any(args[7]):
            places.append(dim)
        else:
            observer.freeze([dim], "the positions of a convolution")
            places.append(())
    return places


def _grouped(
    observer: Observer, given: Dim, weights: Labels, channels: int, out: Tensor, groups: int, transposed: bool
) -> Dim:
    """Whole groups may go, and the same places in every group."""
    split, reason = observer.algebra.split, observer.reason("the groups of a convolution")
    rows, columns = split(given, [groups, channels // groups], reason)
    if transposed:
        weight_rows, weight_columns = split(weights[0], [groups, channels // groups], reason)
        observer.unify(columns, weight_columns, "the input of a convolution")
        places = weights[1]
    else:
        observer.unify(columns, weights[1], "the input of a convolution")
        weight_rows, places = split(weights[0], [groups, int(out.shape[1]) // groups], reason)
    rows = observer.unify(rows, weight_rows, "the groups of a convolution")
    call = observer.python_call
    if call is not None and call.name.startswith("conv"):
        observer.constrain(call.argument(6, "groups"), rows, groups, "the groups of a convolution")
    return observer.algebra.merge([rows, places], [groups, int(out.shape[1]) // groups])


def _deform_conv(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    x, weight, offset, mask, bias = args[:5]
    inputs, weights = observer.labels(x), observer.labels(weight)
    for other in (offset, mask):
        observer.freeze(observer.labels(other), "the offsets of a deformable convolution")
    observer.freeze([*inputs[2:], *weights[2:]], "the positions of a convolution")
    if int(x.shape[1]) != int(weight.shape[1]):
        observer.freeze([inputs[1], *weights[:2]], "the groups of a deformable convolution")
    observer.unify(inputs[1], weights[1], "the input of a convolution")
    made = observer.unify(weights[0], observer.labels(bias)[0], "the bias")
    return (inputs[0], made, (), ())


def _attention(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> list[Labels]:
    """`softmax(q k^T) v`: heads go together, and so do the places that queries and keys are multiplied along."""
    query, key, value = (observer.labels(x) for x in args[:3])
    for side, tensor in ((key, args[1]), (value, args[2])):
        for place in range(len(query) - 2):
            shared = int(args[0].shape[place]) // max(int(tensor.shape[place]), 1)  # grouped queries: several to a head
            heads: Dim = tuple(np.repeat(component, shared) for component in side[place])
            observer.unify(query[place], heads, "the heads of an attention")
    observer.unify(key[-2], value[-2], "the positions of an attention")
    observer.freeze([query[-2], key[-2]], "the positions of an attention")
    observer.unify(query[-1], key[-1], "queries and keys")
    if kwargs.get("scale") is None:
        observer.averages(args[0], [-1])  # the scale is 1 / sqrt(head_dim)
    mask = kwargs.get("attn_mask", kwargs.get("attn_bias"))
    result = (*query[:-1], value[-1])
    attended = (*query[:-1], ())
    if isinstance(mask, Tensor):
        shape = [int(s) for s in args[0].shape[:-1]] + [int(args[1].shape[-2])]
        _broadcast(observer, observer.labels(mask), mask, list(attended), shape, "the mask of an attention")
    outputs = [x for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, Tensor)]
    # Beside the result, the logarithm of each sum.
    return [result if x.dim() == 4 else (*query[:-2], ()) if x.dim() == 3 else ((),) * x.dim() for x in outputs]


def _embedding(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    weight = observer.labels(args[0])
    observer.freeze(weight[:1], "the entries of an embedding")
    return (*[()] * (out.dim() - 1), weight[1])


# ---- norms -------------------------------------------------------------------------------------------------------------


def _embedding_bag(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> list[Labels]:
    weight = observer.labels(args[0])
    observer.freeze(weight[:1], "the entries of an embedding")
    return [((), weight[1]), *[((),) * x.dim() for x in out[1:]]]


def _weight_norm(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> list[Labels]:
    """A direction times a length for each position along one dimension."""
    labels, dim = list(observer.labels(args[0])), int(args[2] if len(args) > 2 else kwargs.get("dim", 0))
    lengths = observer.labels(args[1])
    if lengths:
        labels[dim] = observer.unify(labels[dim], lengths[dim], "the lengths of a weight norm")
    return [tuple(labels), *[((),) * x.dim() for x in out[1:]]]


def _batch_norm(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> list[Labels]:
    labels = list(observer.labels(args[0]))
    for other in args[1:5]:
        if isinstance(other, Tensor):
            labels[1] = observer.unify(labels[1], observer.labels(other)[0], "a batch norm")
    observer.averages(args[0], [0, *range(2, len(labels))])
    channels = int(args[0].shape[1])
    outputs = [x for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, Tensor)]
    statistics = [(labels[1],) if tuple(x.shape) == (channels,) else ((),) * x.dim() for x in outputs[1:]]
    return [tuple(labels) if outputs[0].dim() == len(labels) else ((),) * outputs[0].dim(), *statistics]


def _layer_norm(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> list[Labels]:
    labels, shape = list(observer.labels(args[0])), args[1]
    for number in range(len(shape)):
        place = len(labels) - len(shape) + number
        for other in args[2:4]:
            if isinstance(other, Tensor):
                labels[place] = observer.unify(labels[place], observer.labels(other)[number], "a layer norm")
    several = f"{observer.operation} over several dimensions" if len(shape) > 1 else None
    observer.averages(args[0], range(-len(shape), 0), several)
    statistics = (*labels[: len(labels) - len(shape)], *[()] * len(shape))
    return [tuple(labels), statistics, statistics]


def _group_norm(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> list[Labels]:
    x, groups = args[0], int(args[6])
    labels, channels = list(observer.labels(x)), int(x.shape[1])
    rows: Dim = ()
    if 1 < groups < channels:
        rows, _ = observer.algebra.split(labels[1], [groups, channels // groups], observer.reason("a group norm"))
        call = observer.python_call
        if call is not None and call.name == "group_norm":
            observer.constrain(call.argument(1, "num_groups"), rows, groups, "a group norm")
    elif groups == channels:
        call = observer.python_call
        if call is not None and call.name == "group_norm":
            observer.constrain(call.argument(1, "num_groups"), labels[1], groups, "a group norm")
    observer.averages(x, [1])
    for other in args[1:3]:
        if isinstance(other, Tensor):
            labels[1] = observer.unify(labels[1], observer.labels(other)[0], "a group norm")
    statistics = (labels[0], labels[1] if groups == channels else rows)
    return [tuple(labels), statistics, statistics]


# ---- reductions --------------------------------------------------------------------------------------------------------


def _reduced(dims: Any, count: int) -> set[int]:
    if dims is None or dims == []:
        return set(range(count))
    return {int(dim) % count for dim in (dims if isinstance(dims, list | tuple) else [dims])} if count else set()


def _reduction(position: int, *, zeros_count: bool = False, ordered: bool = False) -> Callable[..., Any]:
    """A rule for a reduction whose dimensions are its argument number `position`.

    Args:
        zeros_count: whether zeros leave the result as it is (a sum).
        ordered: whether the result tells positions apart (argmax), so that none may go.
    """

    def rule(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Any:
        source = args[0]
        given = args[position] if len(args) > position else kwargs.get("dim")
        labels, gone = observer.labels(source), _reduced(given, source.dim())
        reduced = [labels[i] for i in gone]
        if ordered:
            observer.freeze(reduced, "a reduction that tells positions apart")
        elif not zeros_count:
            observer.averages(source, gone)
        outputs = out if isinstance(out, tuple | list) else [out]
        keep = outputs[0].dim() == source.dim()
        kept = tuple(() if i in gone else dim for i, dim in enumerate(labels) if keep or i not in gone)
        return [kept for _ in outputs]

    return rule


def _along(position: int, what: str) -> Callable[..., Any]:
    """A rule for an operation that keeps the shape and mixes the positions of one dimension."""

    def rule(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Any:
        source = args[0]
        labels = observer.labels(source)
        given = args[position] if len(args) > position else kwargs.get("dim", -1)
        if source.dim():
            observer.freeze([labels[int(given)]], what)
        outputs = out if isinstance(out, tuple | list) else [out]
        return [labels if x.dim() == len(labels) else ((),) * x.dim() for x in outputs]

    return rule


def _softmax(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    """Over channels (cross-covariance attention): those that are there share the weight."""
    labels = observer.labels(args[0])
    if labels:
        observer.averages(args[0], [int(args[1])])
    return labels


def _glu(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    labels = list(observer.labels(args[0]))
    dim = (int(args[1]) if len(args) > 1 else -1) % len(labels)
    half = int(args[0].shape[dim]) // 2
    one: Dim = tuple(component[:half] for component in labels[dim])
    labels[dim] = observer.unify(one, tuple(component[half:] for component in labels[dim]), "a gated linear unit")
    return tuple(labels)


def _spatial(dimensions: int) -> Callable[..., Any]:
    """A rule for pooling and resampling: the last dimensions are positions, the others stay."""

    def rule(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Any:
        source = args[0]
        labels = observer.labels(source)
        lead = source.dim() - dimensions
        observer.freeze(labels[lead:], "the positions of pooling or resampling")
        outputs = out if isinstance(out, tuple | list) else [out]
        return [(*labels[:lead], *[()] * dimensions) for _ in outputs]

    return rule


def _roi(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Any:
    labels = observer.labels(args[0])
    observer.freeze([labels[0], *labels[2:]], "regions of interest")
    outputs = out if isinstance(out, tuple | list) else [out]
    return [((), labels[1], (), ()) for _ in outputs]


def _pad_positions(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    labels = list(observer.labels(args[0]))
    padded = len(args[1]) // 2
    observer.freeze(labels[-padded:], "the positions of a padding")
    return (*labels[:-padded], *[()] * padded)


_POOLS = [
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "adaptive_avg_pool1d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact2d",
    "upsample_bilinear2d",
    "_upsample_bilinear2d_aa",
    "upsample_bicubic2d",
    "_upsample_bicubic2d_aa",
    "upsample_trilinear3d",
    "upsample_linear1d",
    "grid_sampler_2d",
    "grid_sampler_3d",
    "max_pool2d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "fractional_max_pool2d",
    "max_unpool2d",
]

COMPUTE: dict[str, Callable[[Observer, Arguments, Named, Any], Any]] = {
    **dict.fromkeys(("mm", "bmm"), _mm),
    **dict.fromkeys(("addmm", "baddbmm", "addmm_", "baddbmm_"), _addmm),
    "_grouped_mm": _grouped_mm,
    "mv": _mv,
    **dict.fromkeys(("dot", "vdot"), _dot),
    "linear": _linear,
    "_trilinear": _trilinear,
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    "torchvision.deform_conv2d": _deform_conv,
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_fused_attention_overrideable",
            "_scaled_dot_product_attention_math_for_mps",
        ),
        _attention,
    ),
    "embedding": _embedding,
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), _embedding_bag),
    "_weight_norm_interface": _weight_norm,
    **dict.fromkeys(
        (
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "_batch_norm_with_update",
            "_batch_norm_no_update",
            "cudnn_batch_norm",
            "miopen_batch_norm",
            "batch_norm",
        ),
        _batch_norm,
    ),
    **dict.fromkeys(("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm"), _layer_norm),
    "native_group_norm": _group_norm,
    **dict.fromkeys(("_softmax", "_safe_softmax"), _softmax),
    "_log_softmax": _along(1, "a softmax"),
    **dict.fromkeys(("cumsum", "cumprod", "logcumsumexp"), _along(1, "a cumulative sum")),
    **dict.fromkeys(("sort", "argsort"), _along(1, "a sort")),
    **dict.fromkeys(("topk", "kthvalue"), _along(2, "the choice of the largest")),
    "glu": _glu,
    "sum": _reduction(1),
    "nansum": _reduction(1, zeros_count=True),
    "linalg_vector_norm": _reduction(2, zeros_count=True),
    "norm": _reduction(2, zeros_count=True),
    **dict.fromkeys(("mean", "amax", "amin", "var", "std", "var_mean", "std_mean", "prod", "logsumexp"), _reduction(1)),
    **dict.fromkeys(("any", "all"), _reduction(1)),
    **dict.fromkeys(("max", "min", "argmax", "argmin", "median", "mode"), _reduction(1, ordered=True)),
    **{name: _spatial(int(re.findall(r"\d", name)[0])) for name in _POOLS},
    **dict.fromkeys(("torchvision.roi_align", "torchvision.roi_pool", "torchvision.ps_roi_align"), _roi),
    **dict.fromkeys((f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)), _pad_positions),
}
