"""What the operators of expressions compute: one table, by the name that stands in files and messages."""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .decision import key


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator.

    Attributes:
        compute: from operands to the value, as Python computes it.
        binds: how tightly, as in Python; 0 for what is written as a call.
        keeps: how much tighter its left and right operands must bind to stand without brackets.
        lazy: whether `compute` takes its operands as functions, and calls those that it needs.
    """

    compute: Callable[..., Any]
    binds: int = 0
    keeps: tuple[int, int] = (0, 1)
    lazy: bool = False


def _equal(one: Any, other: Any) -> bool:
    return bool(key(one) == key(other))


def _case(*parts: Callable[[], Any]) -> Any:
    for holds, value in zip(parts[::2], parts[1::2], strict=True):
        if holds():
            return value()
    raise ValueError("no case holds")


def _switch_case(value: Callable[[], Any], choices: Callable[[], Any], *values: Callable[[], Any]) -> Any:
    found = value()
    for choice, outcome in zip(choices(), values, strict=True):
        if _equal(choice, found):
            return outcome()
    raise ValueError(f"{found!r} is none of the cases {choices()}")


OPERATORS: Mapping[str, Operator] = {
    "|": Operator(lambda one, other: bool(one() or other()), 2, lazy=True),
    "&": Operator(lambda one, other: bool(one() and other()), 3, lazy=True),
    "<": Operator(operator.lt, 1, (1, 1)),
    "<=": Operator(operator.le, 1, (1, 1)),
    ">": Operator(operator.gt, 1, (1, 1)),
    ">=": Operator(operator.ge, 1, (1, 1)),
    "==": Operator(_equal, 1, (1, 1)),
    "!=": Operator(lambda one, other: not _equal(one, other), 1, (1, 1)),
    "in": Operator(lambda one, values: any(_equal(one, value) for value in values), 1, (1, 1)),
    "+": Operator(operator.add, 4),
    "-": Operator(operator.sub, 4),
    "*": Operator(operator.mul, 5),
    "/": Operator(operator.truediv, 5),
    "//": Operator(operator.floordiv, 5),
    "%": Operator(operator.mod, 5),
    "neg": Operator(operator.neg, 6),
    "~": Operator(operator.not_, 6),
    "**": Operator(operator.pow, 7, (1, 1)),
    "getitem": Operator(operator.getitem),
    "abs": Operator(abs),
    "round": Operator(round),
    "floor": Operator(math.floor),
    "ceil": Operator(math.ceil),
    "to_int": Operator(int),
    "to_float": Operator(float),
    "minimum": Operator(lambda *values: min(values)),
    "maximum": Operator(lambda *values: max(values)),
    "condition": Operator(lambda holds, one, other: one() if holds() else other(), lazy=True),
    "case": Operator(_case, lazy=True),
    "switch_case": Operator(_switch_case, lazy=True),
}
"""Operator -> what it does. Those with `binds` stand between their operands, except the unary ones."""

UNARY: Mapping[str, str] = {"neg": "-", "~": "~"}
"""Operators that stand before their one operand, and how they are written."""
