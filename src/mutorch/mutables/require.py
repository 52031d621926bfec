"""A rule between choices, kept in the model that it is about."""

from typing import Any

from mutorch.errors import DerivedError, ExpressionError
from mutorch.space import Operators

from .base import BaseMutable
from .dump import DumpChosen
from .expression import ValueExpression, choice_of


class Require(BaseMutable[Any, Any]):
    """An expression over mutables that every architecture of the model must make true.

    Keep it as an attribute of your model; a `Mutator` makes a constraint of its search space of it. It decides nothing and
    computes nothing. Inside a candidate, it only holds where that candidate is chosen. In an exported model a bare
    `nn.Module` stands in its place.

    Args:
        expression: over values of the model, and over `choice_of(mutable)` of any other mutable.

    Errors:
        ExpressionError: no expression (also `RuntimeError`).

    Example:
        >>> from torch import nn
        >>> from mutorch.mutables import ValueChoice
        >>> from mutorch.mutators import Mutator
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.depth, self.width = ValueChoice([2, 3, 4]), ValueChoice([16, 32])
        ...         self.rule = Require(self.depth * self.width <= 64)
        >>> print(Mutator(Net()).space.report())
        depth    3  2, 3, 4
        width    2  16, 32
        must hold: depth * width <= 64
        2 decisions, 4 architectures
    """

    def __init__(self, expression: Any) -> None:
        super().__init__()
        # In a tuple, so that nn.Module does not register it as a child: the mutables stand elsewhere.
        self._held = (checked(expression),)

    @property
    def expression(self) -> ValueExpression:
        """What must be true."""
        return self._held[0]

    @property
    def is_decision(self) -> bool:
        """Never: it follows the decisions that it speaks of."""
        return False

    @property
    def current_choice(self) -> bool:
        """Whether it holds now.

        Errors:
            DerivedError: when set.
        """
        return bool(self.expression.current_choice)

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        raise DerivedError(f"{self!r} follows the mutables that it speaks of; set these")

    @property
    def choices(self) -> list[bool]:
        """`[True]`."""
        return [True]

    def fix_chosen(self, chosen: Any) -> None:
        """Refused: there is nothing to fix.

        Errors:
            DerivedError: always.
        """
        raise DerivedError(f"{self!r} has nothing to fix; fix the mutables that it speaks of")

    def dump_chosen(self) -> DumpChosen:
        """Whether it holds now."""
        return DumpChosen(chosen=self.current_choice)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.expression})"


def checked(expression: Any) -> ValueExpression:
    """A rule as an expression over mutables.

    Errors:
        ExpressionError: it is none (also `RuntimeError`).
    """
    if isinstance(expression, BaseMutable) and isinstance(expression, Operators):
        return choice_of(expression)
    hint = ""
    if isinstance(expression, bool):
        hint = "; write `.eq(...)`, since `==` asks whether two things are the same object"
    elif isinstance(expression, BaseMutable):
        hint = "; write choice_of(...) around a mutable"
    raise ExpressionError(f"a rule is an expression over mutables, got {expression!r}{hint}")
