"""Functions of decisions that Python has no operator for; they take expressions, mutables and plain values alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from mutorch.errors import SpaceError

from .expression import combine


def to_int(value: Any) -> Any:
    """`int(value)`, as an expression where `value` is one.

    Example:
        >>> from mutorch.space import Ref
        >>> to_int(Ref("width") * 0.75).evaluate({"width": 6}), to_int(2.5)
        (4, 2)
    """
    return combine("to_int", value)


def to_float(value: Any) -> Any:
    """`float(value)`, as an expression where `value` is one."""
    return combine("to_float", value)


def maximum(*values: Any) -> Any:
    """The largest of two or more values, as an expression where one of them is one.

    Example:
        >>> from mutorch.space import Ref
        >>> maximum(Ref("depth"), 3).evaluate({"depth": 2})
        3
    """
    _check_several("maximum", values)
    return combine("maximum", *values)


def minimum(*values: Any) -> Any:
    """The smallest of two or more values, as an expression where one of them is one."""
    _check_several("minimum", values)
    return combine("minimum", *values)


def condition(holds: Any, one: Any, other: Any) -> Any:
    """`one` where `holds` is true, else `other`; only that one is evaluated.

    Example:
        >>> from mutorch.space import Ref
        >>> condition(Ref("op").eq("skip"), 0, Ref("width")).evaluate({"op": "conv", "width": 16})
        16
    """
    return combine("condition", holds, one, other)


def case(pairs: Sequence[tuple[Any, Any]]) -> Any:
    """The value of the first `(condition, value)` pair whose condition holds; end with `(True, value)` for all others.

    Errors:
        SpaceError: no pairs; when evaluated, no condition that holds.

    Example:
        >>> from mutorch.space import Ref
        >>> depth = Ref("depth")
        >>> case([(depth < 2, "shallow"), (depth < 5, "middle"), (True, "deep")]).evaluate({"depth": 3})
        'middle'
    """
    if not pairs:
        raise SpaceError("case needs (condition, value) pairs, got none")
    return combine("case", *(part for holds, value in pairs for part in (holds, value)))


def switch_case(value: Any, cases: Mapping[Any, Any]) -> Any:
    """The entry of `cases` for `value`.

    Errors:
        SpaceError: no cases; when evaluated, a value that is none of them.

    Example:
        >>> from mutorch.space import Ref
        >>> switch_case(Ref("op"), {"conv3": 3, "conv5": 5, "skip": 0}).evaluate({"op": "conv5"})
        5
    """
    if not cases:
        raise SpaceError("switch_case needs a dict from value to what it stands for, got an empty one")
    return combine("switch_case", value, list(cases), *cases.values())


def _check_several(name: str, values: Sequence[Any]) -> None:
    if len(values) < 2:
        raise TypeError(f"{name} takes two values or more, got {len(values)}")
