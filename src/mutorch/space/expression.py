"""Formulas over decisions as plain data: `Ref("depth") * Ref("width") <= 64`."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from mutorch.errors import SpaceError, nearest

from .arithmetic import Operators
from .decision import Choice, plain
from .operators import OPERATORS, UNARY

_ATOM = 99
"""Binds tighter than any operator: a name, a number, a call."""


class Expression(Operators["Expression"]):
    """A formula over decisions: a `Ref`, or an `Operation` on formulas and plain values.

    Made by arithmetic on `Ref`; immutable; JSON-able by `to_data`. See `Operators` for what can be written.

    Example:
        >>> area = Ref("depth") * Ref("width") + 8
        >>> str(area <= 64), area.names()
        ('depth * width + 8 <= 64', ('depth', 'width'))
        >>> area.evaluate({"depth": 2, "width": 16})
        40
        >>> Expression.from_data(area.to_data()).evaluate({"depth": 1, "width": 1})
        9
    """

    __slots__ = ()

    def evaluate(self, architecture: Mapping[str, Choice]) -> Any:
        """The value where decisions are as in `architecture`, which may hold more of them.

        Errors:
            SpaceError: a decision that `architecture` lacks, or arithmetic that fails; says where.
        """
        try:
            return self._value(architecture)
        except (ArithmeticError, TypeError, LookupError, ValueError) as error:
            for name in self.names():
                if name not in architecture:
                    raise SpaceError(f"{self} needs decision {name!r}; {nearest(name, architecture)}") from None
            raise SpaceError(f"{self} has no value where {self.at(architecture)}: {error}") from error

    def at(self, architecture: Mapping[str, Choice]) -> str:
        """The values of its decisions in words: `depth = 4, width = 32`."""
        return ", ".join(f"{name} = {architecture[name]!r}" for name in self.names())

    def names(self) -> tuple[str, ...]:
        """The decisions that it speaks of, in order of appearance."""
        raise NotImplementedError

    def renamed(self, rename: Mapping[str, str]) -> "Expression":
        """The same formula over decisions with other names."""
        raise NotImplementedError

    def to_data(self) -> Any:
        """Plain data, JSON-able; `from_data` reads it. Tuples become lists."""
        raise NotImplementedError

    @staticmethod
    def from_data(data: Any) -> "Expression":
        """The expression that `to_data` wrote.

        Errors:
            SpaceError: anything else.
        """
        if isinstance(data, Mapping) and isinstance(data.get("ref"), str):
            return Ref(data["ref"])
        if isinstance(data, Mapping) and isinstance(data.get("op"), str) and isinstance(data.get("of"), list):
            parts = [Expression.from_data(part) if isinstance(part, Mapping) else part for part in data["of"]]
            return Operation(data["op"], parts)
        raise SpaceError(f'not an expression: {data!r}; write {{"ref": name}} or {{"op": operator, "of": operands}}')

    def _value(self, architecture: Mapping[str, Choice]) -> Any:
        raise NotImplementedError

    def _combined(self, name: str, *operands: Any) -> "Expression":
        return Operation(name, operands) if all(map(_is_operand, operands)) else cast("Expression", NotImplemented)

    def _binds(self) -> int:
        """How tightly its text holds together."""
        return _ATOM

    def __repr__(self) -> str:
        return f"Expression({self})"


class Ref(Expression):
    """The choice of the decision `name`, in a formula.

    Example:
        >>> Ref("op").isin(["conv3", "conv5"]).evaluate({"op": "skip"})
        False
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise SpaceError(f"a reference needs the name of a decision, got {name!r}")
        self.name = name

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def renamed(self, rename: Mapping[str, str]) -> Expression:
        return Ref(rename.get(self.name, self.name))

    def to_data(self) -> Any:
        return {"ref": self.name}

    def _value(self, architecture: Mapping[str, Choice]) -> Any:
        return architecture[self.name]

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> Any:
        return Ref, (self.name,)


class Operation(Expression):
    """An operator with its operands.

    Args:
        operator: a name of `OPERATORS`.
        operands: expressions or plain values.

    Errors:
        SpaceError: an unknown operator.
        TypeError: an operand that is neither an expression nor a plain value.

    Example:
        >>> Operation("<=", (Ref("depth"), 3))
        Expression(depth <= 3)
    """

    __slots__ = ("operands", "operator")

    def __init__(self, operator: str, operands: Sequence[Any]) -> None:
        if operator not in OPERATORS:
            raise SpaceError(f"no operator {operator!r}; {nearest(operator, OPERATORS)}")
        for operand in operands:
            if not _is_operand(operand):
                raise TypeError(f"{operand!r} cannot be part of an expression; plain values and expressions can")
        self.operator = operator
        self.operands = tuple(operands)

    def names(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(name for part in self.operands if isinstance(part, Expression) for name in part.names())
        )

    def renamed(self, rename: Mapping[str, str]) -> "Expression":
        parts = [part.renamed(rename) if isinstance(part, Expression) else part for part in self.operands]
        return Operation(self.operator, parts)

    def to_data(self) -> Any:
        return {"op": self.operator, "of": [_data_of(operand) for operand in self.operands]}

    def _value(self, architecture: Mapping[str, Choice]) -> Any:
        operator = OPERATORS[self.operator]
        if operator.lazy:
            return operator.compute(*(_Later(part, architecture) for part in self.operands))
        return operator.compute(*(p._value(architecture) if isinstance(p, Expression) else p for p in self.operands))

    def _binds(self) -> int:
        return OPERATORS[self.operator].binds or _ATOM

    def __str__(self) -> str:
        operator = OPERATORS[self.operator]
        if self.operator == "getitem":
            return f"{_text(self.operands[0], _ATOM)}[{_text(self.operands[1])}]"
        if self.operator in UNARY:
            return f"{UNARY[self.operator]}{_text(self.operands[0], operator.binds)}"
        if not operator.binds:
            return f"{self.operator}({', '.join(map(_text, self.operands))})"
        # Equal operators stand in a row from the left; `**` and comparisons always show their order.
        left, right = (
            _text(part, operator.binds + own) for part, own in zip(self.operands, operator.keeps, strict=True)
        )
        return f"{left} {self.operator} {right}"

    def __reduce__(self) -> Any:
        return Operation, (self.operator, self.operands)


def combine(name: str, *operands: Any) -> Any:
    """An operator applied to operands of any kind: an expression if one of them is one, else its value."""
    for operand in operands:
        if isinstance(operand, Operators):
            return operand._checked(name, *operands)
    operator = OPERATORS[name]
    return operator.compute(*(_Later(part, {}) if operator.lazy else part for part in operands))


class _Later:
    """An operand that is evaluated when it is called."""

    __slots__ = ("_architecture", "_part")

    def __init__(self, part: Any, architecture: Mapping[str, Choice]) -> None:
        self._part = part
        self._architecture = architecture

    def __call__(self) -> Any:
        return self._part._value(self._architecture) if isinstance(self._part, Expression) else self._part


def _is_operand(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(not isinstance(item, Operators) and _is_operand(item) for item in value)
    return value is None or type(value) in (int, float, bool, str) or isinstance(value, Expression)


def _data_of(operand: Any) -> Any:
    if isinstance(operand, Expression):
        return operand.to_data()
    return (
        None
        if operand is None
        else [_data_of(o) for o in operand]
        if isinstance(operand, list | tuple)
        else plain(operand)
    )


def _text(operand: Any, binds: int = 0) -> str:
    if isinstance(operand, Expression) and operand._binds() < binds:
        return f"({operand})"
    negative = isinstance(operand, int | float) and operand < 0 and binds > OPERATORS["neg"].binds
    return f"({operand!r})" if negative else str(operand) if isinstance(operand, Expression) else repr(operand)
