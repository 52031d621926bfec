"""Constraints that are bounds on sums: `depth1 + depth2 + depth3 <= 12`."""

import math
from collections.abc import Mapping
from typing import Any

from mutorch.errors import CostError
from mutorch.space import Expression, Ref, SearchSpace
from mutorch.space.expression import Operation
from mutorch.space.operators import OPERATORS

from .amount import Amount
from .factors import Factors

_BOUNDS = {
    "<=": (-math.inf, 0),
    "<": (-math.inf, -1),
    ">=": (0, math.inf),
    ">": (1, math.inf),
    "==": (0, 0),
}
"""Where the left side minus the right side must lie; both are integers."""
_ARITHMETIC = ("+", "-", "*", "neg")


def as_sum(constraint: Expression, space: SearchSpace) -> tuple[Factors, float, float] | None:
    """A function of codes and its bounds, which hold exactly where the constraint does.

    Returns:
        `None` where it is nothing like that: choices that are no integers or may be hidden, other operators than comparison,
        `+`, `-` and `*`, or products of too many decisions.

    Example:
        >>> from mutorch.space import Decision
        >>> space = SearchSpace([Decision("depth", (2, 3, 4)), Decision("more", (0, 8))])
        >>> factors, low, high = as_sum(Ref("depth") + Ref("more") < 5, space)
        >>> factors.evaluate([[0, 0], [2, 1]]).tolist(), low, high  # depth + more - 5
        ([-3, 7], -inf, -1)
    """
    if not isinstance(constraint, Operation) or constraint.operator not in _BOUNDS:
        return None
    place = {decision.name: number for number, decision in enumerate(space)}
    sizes: dict[str, Amount] = {}
    for name in constraint.names():
        decision = space[name]
        if decision.when or any(type(choice) is not int for choice in decision.choices):
            return None
        sizes[name] = Amount({(place[name],): decision.choices})
    left, right = (_amount(part, sizes) for part in constraint.operands)
    if left is None or right is None:
        return None
    counts = tuple(len(decision.choices) for decision in space)
    low, high = _BOUNDS[constraint.operator]
    return Factors(counts, Amount.of(left - right).terms), low, high


def _amount(part: Any, sizes: Mapping[str, Amount]) -> Any:
    if isinstance(part, Ref):
        return sizes[part.name]
    if isinstance(part, Operation) and part.operator in _ARITHMETIC:
        operands = [_amount(operand, sizes) for operand in part.operands]
        try:
            return None if any(operand is None for operand in operands) else OPERATORS[part.operator].compute(*operands)
        except CostError:  # a product of too many decisions
            return None
    return part if type(part) is int else None
