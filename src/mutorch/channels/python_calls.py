"""What the integers in a model's own calls of torch say about sizes."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .atoms import ANYTHING
from .dims import Dim, Labels, _groups
from .sizes import AttributeSize, DimSize, Source, TracedInt, sources_of

if TYPE_CHECKING:
    from .observer import Observer, PythonCall

SHAPE_GETTER = Tensor.shape.__get__  # type: ignore[attr-defined]


def constrain_arguments(observer: "Observer", call: "PythonCall", out: Any) -> None:
    """Learn from the integers that a call was given, after it gave `out`."""
    rule = _CALLS.get(call.name)
    if rule is not None and (not observer.checking or rule is _factory):
        rule(observer, call, out)


def _shape_arguments(call: "PythonCall", start: int = 1) -> list[Any]:
    """The sizes in `x.view(2, 3)`, `x.view((2, 3))` and `torch.reshape(x, (2, 3))`."""
    given = call.args[start:] or tuple(v for k, v in call.kwargs.items() if k in ("shape", "size", "sizes"))
    if len(given) == 1 and isinstance(given[0], tuple | list):
        given = tuple(given[0])
    return list(given)


def _view(observer: "Observer", call: "PythonCall", out: Any) -> None:
    source, sizes = call.args[0], _shape_arguments(call)
    if call.name == "unflatten":
        dim = int(call.argument(1, "dim")) % source.dim()
        given = call.argument(2, "sizes")
        sizes = [-1] * dim + list(given) + [-1] * (source.dim() - dim - 1)
    if not isinstance(out, Tensor) or len(sizes) != out.dim():
        return
    given = [source for value in sizes if isinstance(value, TracedInt) and value.is_source for source in value.sources]
    for number, value in enumerate(sizes):
        dim, size = observer.labels(out)[number], int(out.shape[number])
        observer.constrain(value, dim, size, call.name)
        if isinstance(value, TracedInt) and not value.is_source:
            _tie_computed(observer, value, _around(observer, source, out, number), call.name, elsewhere=given)


def _around(observer: "Observer", source: Tensor, out: Tensor, number: int) -> list[Dim]:
    """What a computed size of dimension `number` may come from: it, it and its neighbours, or what was reshaped."""
    shapes = [[int(size) for size in x.shape] for x in (source, out)]
    labels = observer.labels(out)
    for old, new in _groups(shapes[0], shapes[1]):
        if number in new:
            place = new.index(number)
            runs = [new[first : last + 1] for first in range(place + 1) for last in range(place, len(new))]
            merged = [_merged(observer, labels, shapes[1], run) for run in runs]
            return [*merged, _merged(observer, observer.labels(source), shapes[0], old)]
    return [labels[number]]


def _merged(observer: "Observer", labels: Labels, shape: Sequence[int], dims: Sequence[int]) -> Dim:
    return observer.algebra.merge([labels[i] for i in dims], [int(shape[i]) for i in dims])


def _tie_computed(
    observer: "Observer", value: TracedInt, dims: Sequence[Dim], what: str, *, elsewhere: Sequence[Source] = ()
) -> bool:
    """A size computed from that of another dimension, or from an attribute: they must keep what this one keeps.

    Gives whether one of the dimensions is what the size was computed from.

    Args:
        elsewhere: what is the size of another dimension: in `view(groups, channels // groups)`, the first is the groups.
    """
    tied = False
    for source in sources_of(value):
        if any(source is other for other in elsewhere):
            continue
        for dim in dims:
            if not dim or len(dim[0]) != source.size:
                continue
            tied = True
            if isinstance(source, DimSize):
                observer.algebra.tie_counts(source.dim, dim, observer.reason(what))
            else:
                observer.bind(source, dim)
    return tied


def _expand(observer: "Observer", call: "PythonCall", out: Any) -> None:
    sizes = _shape_arguments(call)
    labels, offset = observer.labels(out), out.dim() - len(sizes)
    for number, value in enumerate(sizes):
        observer.constrain(value, labels[offset + number], int(out.shape[offset + number]), call.name)


def _split(observer: "Observer", call: "PythonCall", out: Any) -> None:
    sizes = call.argument(1, "split_size_or_sections")
    if sizes is None:
        sizes = call.argument(1, "split_size")
    source = call.args[0]
    dim = int(call.argument(2, "dim") or 0) % source.dim()
    pieces = [observer.labels(piece)[dim] for piece in out]
    if not any(observer.algebra.free(piece) for piece in pieces):
        return
    given = list(sizes) if isinstance(sizes, tuple | list) else [sizes] * len(pieces)
    whole = observer.labels(source)[dim]
    if all(
        isinstance(v, TracedInt) and not v.is_source and _tie_computed(observer, v, [whole], "split") for v in given
    ):
        _tie_pieces(observer, pieces, "split")
    for value, piece, part in zip(given, pieces, out, strict=True):
        observer.constrain(value, piece, int(part.shape[dim]), "split")


def _chunk(observer: "Observer", call: "PythonCall", out: Any) -> None:
    dim = int(call.argument(2, "dim") or 0) % call.args[0].dim()
    _tie_pieces(observer, [observer.labels(piece)[dim] for piece in out], call.name)


def _tie_pieces(observer: "Observer", pieces: Sequence[Dim], what: str) -> None:
    """Equal pieces stay equal: they keep the same positions."""
    lengths = {len(piece[0]) if piece else 0 for piece in pieces}
    if len(lengths) == 1:
        for piece in pieces[1:]:
            observer.unify(pieces[0], piece, what)
    else:
        observer.freeze(pieces, f"{what} into unequal pieces")


def _getitem(observer: "Observer", call: "PythonCall", out: Any) -> None:
    source, index = call.args[0], call.args[1]
    parts = list(index) if isinstance(index, tuple) else [index]
    labels = observer.labels(source)
    if not any(labels):
        return
    consumed = sum(1 for part in parts if part is not None and part is not Ellipsis and not isinstance(part, bool))
    dim = 0
    for part in parts:
        if part is Ellipsis:
            dim = source.dim() - (consumed - dim)
            continue
        if part is None or isinstance(part, bool):
            continue
        if isinstance(part, slice) and dim < source.dim():
            _slice(observer, part, labels[dim], int(source.shape[dim]))
        dim += (
            part.dim() if isinstance(part, Tensor) and part.dtype.is_floating_point is False and _is_mask(part) else 1
        )


def _is_mask(index: Tensor) -> bool:
    return str(index.dtype) == "torch.bool" and index.dim() > 1


def _slice(observer: "Observer", part: slice, dim: Dim, size: int) -> None:
    """`x[:, :k]` keeps the first k positions, however many there are then."""
    if not observer.algebra.free(dim):
        return
    start, stop, step = part.indices(size)
    if (start, stop, step) == (0, size, 1):
        if isinstance(part.stop, TracedInt):
            observer.constrain(part.stop, dim, size, "slice")
        return
    if step != 1:
        observer.freeze([dim], "a slice with a step")
        return
    bounds = [bound for bound in (part.start, part.stop) if bound is not None and int(bound) % size]
    attribute = bounds[0].sources[0] if len(bounds) == 1 and isinstance(bounds[0], TracedInt) else None
    if isinstance(attribute, AttributeSize) and bounds[0].is_source and bounds[0] > 0:
        first = stop if start == 0 else start
        observer.constrain(bounds[0], tuple(component[:first] for component in dim), first, "slice")
        return
    if all(isinstance(b, TracedInt) and not b.is_source and _tie_computed(observer, b, [dim], "slice") for b in bounds):
        length = math.gcd(start, stop, size)  # half of it, a third of it: equal parts stay equal
        parts = [tuple(component[place : place + length] for component in dim) for place in range(0, size, length)]
        _tie_pieces(observer, parts, "slice")
        return
    observer.freeze([dim], "a slice between fixed numbers")


def _normalized(observer: "Observer", call: "PythonCall", out: Any) -> None:
    shape = call.argument(1, "normalized_shape")
    labels = observer.labels(out)[out.dim() - len(shape) :]
    for value, dim in zip(shape, labels, strict=True):
        observer.constrain(value, dim, int(value), call.name)
    if call.name == "rms_norm":  # on some devices no kernel of its own
        several = " over several dimensions" if len(shape) > 1 else ""
        observer.averages(call.argument(0, "input"), range(-len(shape), 0), f"torch.rms_norm{several}")


def _scalar(observer: "Observer", call: "PythonCall", out: Any) -> None:
    for value in (*call.args, *call.kwargs.values()):
        if isinstance(value, TracedInt):
            observer.on_number(value)


def _attention(observer: "Observer", call: "PythonCall", out: Any) -> None:
    query = call.argument(0, "query")
    if call.kwargs.get("scale") is None:  # it is 1 / sqrt(head_dim), whatever kernels compute it
        observer.averages(query, [-1], "torch.scaled_dot_product_attention")


def _factory(observer: "Observer", call: "PythonCall", out: Any) -> None:
    """A new tensor is as wide as the sizes that it was given."""
    if observer.checking:  # equal everywhere: it may stand for any channels
        if isinstance(out, Tensor):
            anything = [np.full(int(size), ANYTHING, dtype=np.int64) for size in out.shape]
            observer.set_labels(out, tuple((part,) for part in anything))
        return
    start = 1 if call.name.startswith("new_") else 0
    given = call.args[start:] or tuple(v for k, v in call.kwargs.items() if k == "size")
    sizes = (
        list(given[0]) if given and isinstance(given[0], tuple | list) else [v for v in given if type(v) is not float]
    )
    if not isinstance(out, Tensor) or out.dim() > len(sizes) or not any(isinstance(v, TracedInt) for v in sizes):
        return
    labels: list[Dim] = []
    for value, size in zip(sizes, _plain(out.shape), strict=False):
        dim: Dim = ()
        if isinstance(value, TracedInt) and value.is_source:
            source = value.sources[0]
            dim = source.dim if isinstance(source, DimSize) else observer.algebra.fresh(size)
            observer.constrain(value, dim, size, call.name)
        labels.append(dim)
    observer.set_labels(out, tuple(labels))


def _plain(shape: Sequence[int]) -> list[int]:
    return [int(size) for size in shape]


_CALLS: dict[str, Callable[["Observer", "PythonCall", Any], None]] = {
    **dict.fromkeys(("view", "reshape", "unflatten"), _view),
    "expand": _expand,
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    **dict.fromkeys(("chunk", "tensor_split"), _chunk),
    **dict.fromkeys(("add", "sub", "mul", "div", "true_divide", "floor_divide", "pow", "tensor", "as_tensor"), _scalar),
    **dict.fromkeys(("add_", "sub_", "mul_", "div_", "pow_", "__truediv__", "__rtruediv__", "__pow__"), _scalar),
    **dict.fromkeys(("__radd__", "__rsub__", "__rmul__", "__rdiv__", "__rpow__", "rsub", "__itruediv__"), _scalar),
    "__getitem__": _getitem,
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalized),
    **dict.fromkeys(("zeros", "ones", "empty", "full", "randn", "rand"), _factory),
    **dict.fromkeys(("new_zeros", "new_ones", "new_empty", "new_full"), _factory),
}
