"""Exact arithmetic on mutables: `self.kernel // 2` is a value that follows `self.kernel`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from mutorch.errors import ExpressionError, SpaceError
from mutorch.space import Expression, Operators, Ref
from mutorch.space.decision import key
from mutorch.space.functions import case, condition, maximum, minimum, switch_case, to_float, to_int

from .base import BaseMutable
from .derived import DerivedMutable

__all__ = [
    "ValueExpression",
    "case",
    "choice_of",
    "condition",
    "maximum",
    "minimum",
    "switch_case",
    "to_float",
    "to_int",
]
MAX_COMBINATIONS = 100_000
"""Combinations of choices up to which an expression lists its values."""


@dataclass(eq=False)
class Evaluated:
    """A formula over mutables: its references are their places in `leaves`."""

    formula: Expression
    leaves: tuple[BaseMutable[Any, Any], ...]

    def __call__(self) -> Any:
        return self.formula.evaluate({str(n): leaf.current_choice for n, leaf in enumerate(self.leaves)})


class ValueExpression(Operators["ValueExpression"], DerivedMutable):
    """A value computed from mutables, exactly as Python computes it, whenever `current_choice` is read.

    Arithmetic on a `ValueChoice`, or on `choice_of(...)` of any other mutable, makes it. Keep it as an attribute of your
    model, where `export` finds it: `self.padding = self.kernel // 2`, and read `self.padding.current_choice` in the
    forward. See `mutorch.space.Operators` for what can be written.

    Args:
        formula: over references `"0"`, `"1"` ..., the places of the mutables in `leaves`.
        leaves: the mutables that it reads.

    Errors:
        ExpressionError: where a value is needed at once: `bool(...)`, `int(...)`, `range(...)`.

    Example:
        >>> from mutorch.mutables import ValueChoice
        >>> kernel = ValueChoice([3, 5, 7], label="kernel")
        >>> padding = kernel // 2
        >>> kernel.current_choice = 7
        >>> padding.current_choice, padding.choices, str(padding)
        (3, [1, 2, 3], 'kernel // 2')
    """

    def __init__(self, formula: Expression, leaves: Sequence[BaseMutable[Any, Any]]) -> None:
        evaluated = Evaluated(formula, tuple(leaves))
        super().__init__(choice_fn=evaluated)
        self._evaluated = evaluated

    @property
    def leaves(self) -> tuple[BaseMutable[Any, Any], ...]:
        """The mutables that it reads, derived ones among them as they are."""
        return self._evaluated.leaves

    @property
    def choices(self) -> list[Any]:
        """Its different values over all combinations of its sources' choices, in the order of these.

        Errors:
            ExpressionError: more than 100,000 combinations.
        """
        combinations = math.prod(len(source.choices) for source in self.sources)
        if combinations > MAX_COMBINATIONS:
            raise ExpressionError(
                f"{self} has too many values to list: its sources have {combinations:,} combinations of choices, "
                f"more than {MAX_COMBINATIONS:,}; read current_choice instead"
            )
        return list({key(value): value for value in reversed(super().choices)}.values())[::-1]

    def over(self, names: Mapping[int, str]) -> Expression:
        """The same formula over decisions, for the constraints of a space.

        Args:
            names: the decision of each mutable, by the mutable's id.

        Errors:
            SpaceError: a mutable that it reads is not named.
        """
        rename = {}
        for number, leaf in enumerate(self.leaves):
            if id(leaf) not in names:
                hint = "; write its arithmetic with ValueChoice" if isinstance(leaf, DerivedMutable) else ""
                raise SpaceError(f"{self} reads {_name(leaf, number)}, which is no decision of this model{hint}")
            rename[str(number)] = names[id(leaf)]
        return self._evaluated.formula.renamed(rename)

    def _combined(self, name: str, *operands: Any) -> "ValueExpression":
        return combined(name, *operands)

    def __str__(self) -> str:
        names = {str(number): _name(leaf, number) for number, leaf in enumerate(self.leaves)}
        return str(self._evaluated.formula.renamed(names))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self}, current_choice={self.current_choice!r})"


def choice_of(mutable: BaseMutable[Any, Any]) -> ValueExpression:
    """The current choice of any mutable as an expression, so that values and rules can follow it.

    Errors:
        TypeError: not a mutable.

    Example:
        >>> from torch import nn
        >>> from mutorch.mutables import OneShotMutableOP
        >>> op = OneShotMutableOP({"conv": nn.Conv2d(4, 4, 1), "skip": nn.Identity()}, alias="op")
        >>> skips = choice_of(op).eq("skip")
        >>> op.current_choice = "skip"
        >>> skips
        ValueExpression(op == 'skip', current_choice=True)
    """
    if not isinstance(mutable, BaseMutable):
        raise TypeError(f"choice_of takes a mutable of a model, got {type(mutable).__name__}")
    return mutable if isinstance(mutable, ValueExpression) else ValueExpression(Ref("0"), (mutable,))


def combined(name: str, *operands: Any) -> ValueExpression:
    """An operator over mutables, expressions of mutables and plain values; `NotImplemented` for anything else."""
    leaves: dict[int, BaseMutable[Any, Any]] = {}
    parts = []
    for operand in operands:
        if not isinstance(operand, BaseMutable):
            parts.append(operand)
            continue
        expression = choice_of(operand)
        for leaf in expression.leaves:
            leaves.setdefault(id(leaf), leaf)
        places = {identity: str(number) for number, identity in enumerate(leaves)}
        rename = {str(number): places[id(leaf)] for number, leaf in enumerate(expression.leaves)}
        parts.append(expression._evaluated.formula.renamed(rename))
    if any(isinstance(operand, Operators) and not isinstance(operand, BaseMutable) for operand in operands):
        raise ExpressionError(
            "an expression reads mutables or names decisions, not both; write choice_of(mutable) instead of Ref(name)"
        )
    formula = Ref("0")._combined(name, *parts)
    return (
        cast("ValueExpression", NotImplemented)
        if formula is NotImplemented
        else ValueExpression(formula, [*leaves.values()])
    )


def _name(mutable: BaseMutable[Any, Any], number: int) -> str:
    """What a mutable is called where its path is not known."""
    return mutable.alias or f"{type(mutable).__name__}_{number}"
