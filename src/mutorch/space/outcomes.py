"""Which values an expression may still have while some decisions are open: what a search can rule out early."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .decision import Choice, key
from .expression import Expression, Operation, Ref
from .operators import OPERATORS

_FEW = 16
"""Values up to which they are all kept; of more, if they are numbers, the range."""
_PAIRS = 256
_MONOTONE = frozenset(
    ("+", "-", "*", "/", "//", "neg", "minimum", "maximum", "to_int", "to_float", "floor", "ceil", "round")
)
"""Operators whose extremes over ranges lie at ends of the ranges."""
_ORDER = frozenset(("<", "<=", ">", ">="))
_TRUTH = frozenset((*_ORDER, "==", "!=", "in", "&", "|", "~"))


class _Outcomes:
    """Values, or a range of numbers between the smallest and largest of them."""

    __slots__ = ("is_range", "values")

    def __init__(self, values: Iterable[Any], is_range: bool) -> None:
        found = list({(type(value), key(value)): value for value in values}.values())
        numbers = all(isinstance(value, int | float) for value in found)
        self.is_range = numbers and (is_range or len(found) > _FEW)
        self.values = [min(found), max(found)] if self.is_range else found


def may_hold(expression: Expression, domains: Mapping[str, Sequence[Choice]]) -> bool:
    """Whether `expression` may be true where each decision is one of its domain; False is certain, True is not.

    Example:
        >>> may_hold(Ref("a") + Ref("b") > 6, {"a": (1, 2), "b": (3, 4)})
        False
    """
    found = _outcomes(expression, domains)
    return found is None or found.is_range or any(found.values)


def _outcomes(expression: Any, domains: Mapping[str, Sequence[Choice]]) -> _Outcomes | None:
    if isinstance(expression, Ref):
        return _Outcomes(domains[expression.name], is_range=False)
    if not isinstance(expression, Operation):
        return _Outcomes([expression], is_range=False)
    parts = [_outcomes(part, domains) for part in expression.operands]
    known = [part for part in parts if part is not None]
    found = _applied(expression.operator, known) if len(known) == len(parts) else None
    return _Outcomes((False, True), is_range=False) if found is None and expression.operator in _TRUTH else found


def _applied(name: str, parts: Sequence[_Outcomes]) -> _Outcomes | None:
    """What an operator may give; `None` where that cannot be said."""
    operator = OPERATORS[name]
    is_range = any(part.is_range for part in parts)
    if is_range and name in ("==", "!=", "in"):
        return _Outcomes([name == "!="], is_range=False) if _are_apart(name, parts) else None
    if is_range and name not in _MONOTONE and name not in _ORDER:
        return None
    if is_range and name in ("/", "//") and min(parts[1].values) <= 0 <= max(parts[1].values):
        return None
    if math.prod(len(part.values) for part in parts) > _PAIRS:
        return None
    values = []
    for operands in itertools.product(*(part.values for part in parts)):
        try:
            values.append(operator.compute(*(map(_later, operands) if operator.lazy else operands)))
        except (ArithmeticError, TypeError, LookupError, ValueError):  # where this is not reached, nothing is wrong
            return None
    return _Outcomes(values, is_range and name in _MONOTONE)


def _are_apart(name: str, parts: Sequence[_Outcomes]) -> bool:
    """Whether two things, one of them a range, can never be equal."""
    one, other = parts[0].values, parts[1].values
    others = (
        [value for values in other if isinstance(values, list | tuple) for value in values] if name == "in" else other
    )
    if not all(isinstance(value, int | float) for value in (*one, *others)):
        return False
    if name == "in":
        return all(value < min(one) or max(one) < value for value in others)
    return bool(max(one) < min(others) or max(others) < min(one))


def _later(value: Any) -> Any:
    return lambda: value
