"""The rules that a model and its user require, as constraints of a search space."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any

from mutorch.mutables import ValueExpression
from mutorch.mutables.require import checked
from mutorch.space import Expression, Ref

Rule = Expression | ValueExpression
"""What must hold: an expression over decisions (`Ref(name)`), or over mutables of the model."""
Around = Sequence[tuple[str, Sequence[tuple[str, Any] | None]]]
"""The decisions around a place, outermost first, each with the `(decision, choice)` pairs under which it is in the model."""


def as_constraint(rule: Any, names: Mapping[int, str]) -> Expression:
    """A rule over the names of decisions.

    Args:
        names: the decision of each mutable, by the mutable's id.

    Errors:
        SpaceError: it reads a mutable that is no decision of the model.
        ExpressionError: it is no expression.
    """
    return rule if isinstance(rule, Expression) else checked(rule).over(names)


def only_inside(constraint: Expression, around: Around) -> Expression:
    """A constraint that only holds where the candidates around it are in the model.

    Example:
        >>> only_inside(Ref("depth") < 3, [("op", [("op", "deep")])])
        Expression(~(op in ['deep']) | (depth < 3))
    """
    chosen = [
        Ref(name).isin([pair[1] for pair in pairs if pair is not None]) for name, pairs in around if None not in pairs
    ]
    return ~reduce(and_, chosen) | constraint if chosen else constraint


def distinct(constraints: Iterable[Expression]) -> list[Expression]:
    """The constraints, each once: a module that stands at two places comes twice."""
    return list({str(constraint.to_data()): constraint for constraint in constraints}.values())
