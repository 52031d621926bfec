"""Rules of operations that only move elements: the labels move the same way."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .atoms import ALWAYS, ANYTHING
from .dims import Dim, Labels
from .observer import Observer
from .python_calls import _tie_pieces

Arguments = tuple[Any, ...]
Named = dict[str, Any]


def _get(args: Arguments, kwargs: Named, position: int, name: str, default: Any = None) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def _view(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    source = args[0]
    shapes = [[int(size) for size in x.shape] for x in (source, out)]
    return observer.algebra.reshape(observer.labels(source), shapes[0], shapes[1], observer.reason("a view"))


def _permute(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    labels = observer.labels(args[0])
    return tuple(labels[int(dim)] for dim in args[1])


def _transpose(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    labels = list(observer.labels(args[0]))
    if len(args) == 1:  # aten.t
        return tuple(reversed(labels))
    a, b = int(args[1]), int(args[2])
    labels[a], labels[b] = labels[b], labels[a]
    return tuple(labels)


def _unsqueeze(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    labels = list(observer.labels(args[0]))
    labels.insert(int(args[1]) % out.dim(), ())
    return tuple(labels)


def _squeeze(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    source = args[0]
    dims = range(source.dim()) if len(args) == 1 else args[1] if isinstance(args[1], list | tuple) else [args[1]]
    gone = {int(dim) % source.dim() for dim in dims} if source.dim() else set()
    return tuple(dim for i, dim in enumerate(observer.labels(source)) if not (i in gone and source.shape[i] == 1))


def _select(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    labels = list(observer.labels(args[0]))
    observer.freeze([labels.pop(int(args[1]))], "the choice of one position")
    return tuple(labels)


def _slice(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    source = args[0]
    dim = int(_get(args, kwargs, 1, "dim", 0)) % source.dim()
    start, end = _get(args, kwargs, 2, "start"), _get(args, kwargs, 3, "end")
    step = int(_get(args, kwargs, 4, "step", 1))
    labels = list(observer.labels(source))
    part = slice(start, end, step)
    labels[dim] = tuple(component[part] for component in labels[dim])
    return tuple(labels)


def _as_strided(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    """The first positions along each dimension, as a dynamic module reads them; anything else mixes them up."""
    source = args[0]
    labels = observer.labels(source)
    if out.stride() == source.stride() and out.storage_offset() == source.storage_offset():
        return tuple(tuple(part[:size] for part in dim) for dim, size in zip(labels, map(int, out.shape), strict=True))
    observer.freeze(labels, "strides that are fixed")
    return ((),) * out.dim()


def _narrow(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    return _slice(observer, (args[0], args[1], args[2], args[2] + args[3]), {}, out)


def _pieces(observer: Observer, args: Arguments, kwargs: Named, out: Sequence[Tensor]) -> list[Labels]:
    source = args[0]
    dim = int(_get(args, kwargs, 2, "dim", 0)) % source.dim()
    labels, start = observer.labels(source), 0
    found: list[Labels] = []
    for piece in out:
        size = int(piece.shape[dim])
        own: Dim = tuple(component[start : start + size] for component in labels[dim])
        found.append((*labels[:dim], own, *labels[dim + 1 :]))
        start += size
    call = observer.python_call
    if not observer.checking and (
        call is None or call.name not in ("split", "split_with_sizes", "chunk", "tensor_split")
    ):
        _tie_pieces(
            observer, [labels[dim] for labels in found], "equal parts"
        )  # inside torch: gates of a recurrent layer
    return found


def _unbind(observer: Observer, args: Arguments, kwargs: Named, out: Sequence[Tensor]) -> list[Labels]:
    labels = list(observer.labels(args[0]))
    observer.freeze([labels.pop(int(_get(args, kwargs, 1, "dim", 0)))], "the choice of one position")
    return [tuple(labels) for _ in out]


def _cat(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    parts = [x for x in args[0] if x.dim() == out.dim()]  # torch lets an empty vector pass
    dim = int(_get(args, kwargs, 1, "dim", 0)) % out.dim()
    result: list[Dim] = []
    for place in range(out.dim()):
        dims = [observer.labels(x)[place] for x in parts]
        if place == dim:
            height = max(len(labels) for labels in dims)
            if observer.checking and any(int(x.shape[dim]) == 1 for x in parts):
                height = max(height, 1)
            result.append(
                tuple(
                    np.concatenate(
                        [
                            _component(labels, row, int(x.shape[dim]), observer.checking)
                            for labels, x in zip(dims, parts, strict=True)
                        ]
                    )
                    for row in range(height)
                )
            )
            continue
        joint = dims[0]
        for other in dims[1:]:
            joint = observer.unify(joint, other, "a concatenation")
        result.append(joint)
    return tuple(result)


def _component(labels: Dim, row: int, size: int, checking: bool) -> Any:
    if row < len(labels):
        return labels[row]
    # Of a dimension that was cut to one position, labels are not kept.
    return np.full(size, ANYTHING if checking and size == 1 and row == 0 else ALWAYS, dtype=np.int64)


def _stack(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    dim = int(_get(args, kwargs, 1, "dim", 0)) % out.dim()
    joint = list(observer.labels(args[0][0]))
    for x in args[0][1:]:
        joint = [observer.unify(a, b, "a stack") for a, b in zip(joint, observer.labels(x), strict=True)]
    joint.insert(dim, ())
    return tuple(joint)


def _expand(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    source = args[0]
    added = out.dim() - source.dim()
    old = [*[1] * added, *map(int, source.shape)]
    labels: list[Dim] = [*[()] * added, *observer.labels(source)]
    call = observer.python_call
    follows = call is None or call.name in ("expand", "expand_as", "normalize")  # others may take a number
    for number, (size, new) in enumerate(zip(old, map(int, out.shape), strict=True)):
        if size != new and not follows:
            labels[number] = ()
        elif size != new:  # the same everywhere, so any of it may go
            labels[number] = (np.full(new, ANYTHING),) if observer.checking else observer.algebra.fresh(new)
    return tuple(labels)


def _repeat(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    source, times = args[0], [int(count) for count in args[1]]
    added = out.dim() - source.dim()
    kept: list[Dim] = [
        tuple(np.tile(c, n) for c in dim) for dim, n in zip(observer.labels(source), times[added:], strict=True)
    ]
    return (*[()] * added, *kept)


def _index_select(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    labels, dim, index = list(observer.labels(args[0])), int(args[1]), args[2]
    if labels[dim]:
        call = observer.python_call
        if call is not None and call.name == "repeat_interleave" or observer.checking:
            where = index.reshape(-1).tolist()
            labels[dim] = tuple(component[where] for component in labels[dim])
        else:
            observer.freeze([labels[dim]], "indices that are fixed")
            labels[dim] = ()
    return tuple(labels)


def _index(observer: Observer, args: Arguments, kwargs: Named, out: Tensor) -> Labels:
    """Indexed dimensions are frozen; the indices' dimensions stand in their place."""
    labels, indices = observer.labels(args[0]), list(args[1])
    used = [i for i, index in enumerate(indices) if index is not None]
    observer.freeze([labels[i] for i in used], "indices that are fixed")
    if any(indices[i].dtype in (torch.bool, torch.uint8) and indices[i].dim() > 1 for i in used):
        covered = sum(indices[i].dim() if indices[i].dtype == torch.bool else 1 for i in used)
        observer.freeze(labels[:covered], "a mask that is fixed")
        return ((),) * (out.dim() - (len(labels) - covered)) + labels[covered:]
    rest = [dim for i, dim in enumerate(labels) if i not in used]
    together = used == list(range(used[0], used[-1] + 1))
    place = used[0] if together else 0
    new: list[Dim] = [()] * (out.dim() - len(rest))
    return (*rest[:place], *new, *rest[place:])


def _same(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    return observer.labels(args[0])


def _flip(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    source = args[0]
    turned = {int(dim) % source.dim() for dim in args[1]}
    return tuple(
        tuple(component[::-1].copy() for component in dim) if i in turned else dim
        for i, dim in enumerate(observer.labels(source))
    )


def _roll(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    source = args[0]
    dims = _get(args, kwargs, 2, "dims", ()) or range(source.dim())
    labels = observer.labels(source)
    observer.freeze([labels[int(dim)] for dim in dims], "a roll by a fixed number")
    return labels


def _pad(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    labels, amounts = list(observer.labels(args[0])), [int(n) for n in args[1]]
    for number in range(len(amounts) // 2):
        before, after = amounts[2 * number], amounts[2 * number + 1]
        dim = len(labels) - 1 - number
        if labels[dim] and (before or after):
            if before < 0 or after < 0:
                observer.freeze([labels[dim]], "a negative padding")
                labels[dim] = ()
            else:
                labels[dim] = tuple(np.pad(component, (before, after)) for component in labels[dim])
    return tuple(labels)


def _pixel_shuffle(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    """`(C r^2, H, W)` to `(C, H r, W r)`: the r^2 channels of one output channel go together."""
    labels, factor = observer.labels(args[0]), int(args[1])
    size = int(args[0].shape[-3]) // factor**2
    rows, columns = observer.algebra.split(labels[-3], [size, factor**2], observer.reason("a pixel shuffle"))
    observer.freeze([columns, *labels[-2:]], "a pixel shuffle")
    return (*labels[:-3], rows, (), ())


def _pixel_unshuffle(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    labels, factor = observer.labels(args[0]), int(args[1])
    observer.freeze(labels[-2:], "a pixel unshuffle")
    merged = observer.algebra.merge([labels[-3], ()], [int(args[0].shape[-3]), factor**2])
    return (*labels[:-3], merged, (), ())


def _unfold(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    labels = list(observer.labels(args[0]))
    dim = int(args[1]) % len(labels)
    observer.freeze([labels[dim]], "windows of fixed size")
    labels[dim] = ()
    return (*labels, ())


def _im2col(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    """`(N, C, H, W)` to `(N, C k^2, L)`."""
    labels, kernel = observer.labels(args[0]), args[1]
    observer.freeze(labels[-2:], "windows of fixed size")
    merged = observer.algebra.merge([labels[-3], ()], [int(args[0].shape[-3]), int(kernel[0]) * int(kernel[1])])
    return (*labels[:-3], merged, ())


def _col2im(observer: Observer, args: Arguments, kwargs: Named, out: Any) -> Labels:
    labels, kernel = observer.labels(args[0]), args[2]
    area = int(kernel[0]) * int(kernel[1])
    rows, columns = observer.algebra.split(
        labels[-2], [int(args[0].shape[-2]) // area, area], observer.reason("windows of fixed size")
    )
    observer.freeze([columns, labels[-1]], "windows of fixed size")
    return (*labels[:-2], rows, (), ())


MOVEMENT: dict[str, Callable[[Observer, Arguments, Named, Any], Any]] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy", "_reshape_copy"), _view),
    "permute": _permute,
    **dict.fromkeys(("t", "transpose", "t_", "transpose_"), _transpose),
    **dict.fromkeys(("unsqueeze", "unsqueeze_"), _unsqueeze),
    **dict.fromkeys(("squeeze", "squeeze_"), _squeeze),
    "select": _select,
    "slice": _slice,
    "as_strided": _as_strided,
    "narrow": _narrow,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "split_copy"), _pieces),
    "unsafe_chunk": _pieces,
    "unbind": _unbind,
    "embedding_renorm_": _same,
    "cat": _cat,
    "stack": _stack,
    "expand": _expand,
    "repeat": _repeat,
    "index_select": _index_select,
    **dict.fromkeys(("index", "_unsafe_index"), _index),
    "flip": _flip,
    "roll": _roll,
    "constant_pad_nd": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "unfold": _unfold,
    "im2col": _im2col,
    "col2im": _col2im,
}
