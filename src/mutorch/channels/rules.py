"""What each operation of torch does to labels: one table, which `register_label_rule` extends.

Operations are named as torch's dispatcher names them without their overload: `aten.mm`, `torchvision.roi_align`. An
operation that computes each element from the elements at the same place needs no rule (torch tags most of them).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from mutorch.errors import RegistryError

from .dims import Dim, Labels
from .observer import Observer
from .rules_compute import COMPUTE
from .rules_movement import MOVEMENT

Rule = Callable[[Observer, "tuple[Any, ...]", "dict[str, Any]", Any], "Labels | Sequence[Labels] | None"]
"""Takes the observer, the arguments of the operation and what it gave; gives labels for each tensor that it gave."""


def _elementwise(observer: Observer, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> list[Labels]:
    """Operands keep the same positions where they are as long, or are repeated."""
    operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
    result: list[Labels] = []
    for output in outputs:
        dims: list[Dim] = []
        for place in range(output.dim()):
            from_end = output.dim() - place
            meeting = [
                observer.labels(x)[x.dim() - from_end]
                for x in operands
                if x.dim() >= from_end and x.shape[x.dim() - from_end] == output.shape[place] != 1
            ]
            dim: Dim = meeting[0] if meeting else ()
            for other in meeting[1:]:
                dim = observer.unify(dim, other, "an elementwise operation")
            dims.append(dim)
        result.append(tuple(dims))
    return result


def _nothing(observer: Observer, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """The result has no positions that come from the operands'."""


_ELEMENTWISE = [
    "copy_",
    "clone",
    "contiguous",
    "detach",
    "detach_",
    "alias",
    "lift_fresh",
    "lift",
    "_to_copy",
    "to",
    "fill_",
    "zero_",
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "rand_like",
    "randn_like",
    "native_dropout",
    "dropout",
    "bernoulli",
    "bernoulli_",
    "uniform_",
    "normal_",
    "masked_fill",
    "masked_fill_",
    "where",
    "clamp",
    "hardtanh",
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
    "elu",
    "elu_",
    "prelu",
    "_prelu_kernel",
    "gelu",
    "glu_jvp",
    "rrelu_with_noise",
    "as_strided_",
    "hardswish",
    "hardswish_",
    "hardsigmoid",
    "silu",
    "silu_",
    "mish",
    "softplus",
    "nan_to_num",
    "type_as",
    "isfinite",
    "isnan",
]
_NOTHING = [
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
    "new_empty_strided",
    "arange",
    "_local_scalar_dense",
    "nonzero",
    "item",
    "equal",
    "is_nonzero",
    "sym_size",
    "sym_stride",
    "_assert_async",
    "unique_dim",
    "nms",
]
_TABLE: dict[str, Rule] = {
    **{f"aten.{name}": _elementwise for name in _ELEMENTWISE},
    **{f"aten.{name}": _nothing for name in _NOTHING},
    "torchvision.nms": _nothing,
    **{name if "." in name else f"aten.{name}": rule for name, rule in {**MOVEMENT, **COMPUTE}.items()},
}


@dataclass(frozen=True, slots=True)
class _Registered:
    """Rules that users taught; kept apart from the table above, which is never changed."""

    rules: dict[str, Rule]


_REGISTERED = _Registered({})


def register_label_rule(operation: str, rule: Rule) -> None:
    """Teach the observer an operation, such as a custom kernel.

    Args:
        operation: its name without overload: `"mylib.my_op"`.
        rule: `rule(observer, args, kwargs, out)` reads `observer.labels(tensor)`, may `observer.unify(dim, dim, what)` and
            `observer.freeze(dims, what)`, and gives the labels of the output: one `Dim` for each dimension, `()` for one
            along which nothing may be removed.

    Errors:
        RegistryError: the operation has a rule.

    Example:
        >>> register_label_rule("mylib.swish", lambda observer, args, kwargs, out: observer.labels(args[0]))
    """
    if operation in _TABLE or operation in _REGISTERED.rules:
        raise RegistryError(f"operation {operation!r} has a label rule already")
    _REGISTERED.rules[operation] = rule


def apply_rule(observer: Observer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
    """Label what `func` gave. Without a rule, the channels that it touches are frozen, and reported."""
    outputs = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
    observer.operation = name = str(func._overloadpacket)
    rule = _REGISTERED.rules.get(name) or _TABLE.get(name)
    if rule is None and torch.Tag.pointwise in func.tags:
        rule = _elementwise
    if rule is None:
        _unknown(observer, name, args, kwargs)
        return
    labels = rule(observer, args, kwargs, out)
    if labels is None:
        return
    each: Sequence[Any] = [labels] if _is_labels(labels) else labels
    for tensor, found in zip(outputs, each, strict=False):
        observer.set_labels(
            tensor, tuple(() if size == 1 else dim for dim, size in zip(found, tensor.shape, strict=True))
        )


def _is_labels(value: Sequence[Any]) -> bool:
    """Whether this is one tensor's labels: a tuple of dimensions, not a list of such tuples."""
    return isinstance(value, tuple)


def _unknown(observer: Observer, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    touched = [
        dim
        for x in tree_leaves((args, kwargs))
        if isinstance(x, Tensor)
        for dim in observer.labels(x)
        if observer.algebra.free(dim)
    ]
    if touched and not observer.checking:
        channels = sum(len(observer.algebra.atoms_of(dim)) for dim in touched)
        observer.unknown[name, observer.module] += channels
        observer.freeze(touched, f"operation {name!r} has no label rule (teach it with register_label_rule)")
