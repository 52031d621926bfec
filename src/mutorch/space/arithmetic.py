"""The operators that can be written between expressions."""

from typing import Any, Generic, TypeVar

from mutorch.errors import ExpressionError

E = TypeVar("E")
"""What an operator gives: an `Expression`, or an expression over mutables."""


class Operators(Generic[E]):
    """The operators of expressions, written once: each gives a new expression and computes nothing.

    `==` stays identity, so that expressions can be keys and members; `.eq`, `.ne` and `.isin` compare. `&`, `|` and `~`
    are logical, and the right side is only evaluated where it decides. Asking for a truth value, a number or a range is an
    error that says what to write instead.
    """

    def _combined(self, name: str, *operands: Any) -> E:
        """The expression of an operator; `NotImplemented` for operands that cannot be part of one."""
        raise NotImplementedError

    def __add__(self, other: object) -> E:
        return self._combined("+", self, other)

    def __radd__(self, other: object) -> E:
        return self._combined("+", other, self)

    def __sub__(self, other: object) -> E:
        return self._combined("-", self, other)

    def __rsub__(self, other: object) -> E:
        return self._combined("-", other, self)

    def __mul__(self, other: object) -> E:
        return self._combined("*", self, other)

    def __rmul__(self, other: object) -> E:
        return self._combined("*", other, self)

    def __truediv__(self, other: object) -> E:
        return self._combined("/", self, other)

    def __rtruediv__(self, other: object) -> E:
        return self._combined("/", other, self)

    def __floordiv__(self, other: object) -> E:
        return self._combined("//", self, other)

    def __rfloordiv__(self, other: object) -> E:
        return self._combined("//", other, self)

    def __mod__(self, other: object) -> E:
        return self._combined("%", self, other)

    def __rmod__(self, other: object) -> E:
        return self._combined("%", other, self)

    def __pow__(self, other: object) -> E:
        return self._combined("**", self, other)

    def __rpow__(self, other: object) -> E:
        return self._combined("**", other, self)

    def __neg__(self) -> E:
        return self._combined("neg", self)

    def __abs__(self) -> E:
        return self._combined("abs", self)

    def __round__(self, digits: int | None = None) -> E:
        return self._combined("round", self) if digits is None else self._combined("round", self, digits)

    def __floor__(self) -> E:
        return self._combined("floor", self)

    def __ceil__(self) -> E:
        return self._combined("ceil", self)

    def __lt__(self, other: object) -> E:
        return self._combined("<", self, other)

    def __le__(self, other: object) -> E:
        return self._combined("<=", self, other)

    def __gt__(self, other: object) -> E:
        return self._combined(">", self, other)

    def __ge__(self, other: object) -> E:
        return self._combined(">=", self, other)

    def eq(self, other: object) -> E:
        """Whether both are equal; a tuple equals the list of its items."""
        return self._checked("==", self, other)

    def ne(self, other: object) -> E:
        """Whether they differ."""
        return self._checked("!=", self, other)

    def isin(self, values: object) -> E:
        """Whether it is one of `values`."""
        return self._checked("in", self, list(values) if isinstance(values, set | frozenset) else values)

    def __and__(self, other: object) -> E:
        return self._combined("&", self, other)

    def __rand__(self, other: object) -> E:
        return self._combined("&", other, self)

    def __or__(self, other: object) -> E:
        return self._combined("|", self, other)

    def __ror__(self, other: object) -> E:
        return self._combined("|", other, self)

    def __invert__(self) -> E:
        return self._combined("~", self)

    def __getitem__(self, item: object) -> E:
        return self._checked("getitem", self, item)

    def __bool__(self) -> bool:
        raise self._no_value(
            "no truth value", "combine with `&`, `|`, `~`, choose with `condition`, `minimum`, `maximum`"
        )

    def __int__(self) -> int:
        raise self._no_value("no int value", "write `to_int(...)`")

    def __float__(self) -> float:
        raise self._no_value("no float value", "write `to_float(...)`")

    def __index__(self) -> int:
        raise self._no_value("no number to count, index or slice with", "build as many as there may be, and use some")

    def __iter__(self) -> Any:
        raise self._no_value("nothing to iterate over", "index it with `[...]`, test members with `.isin(...)`")

    def _checked(self, name: str, *operands: Any) -> E:
        """Like `_combined`, for methods: Python turns NotImplemented into a TypeError for operators only."""
        found = self._combined(name, *operands)
        if found is NotImplemented:
            raise TypeError(f"{operands[-1]!r} cannot be part of an expression; plain values and expressions can")
        return found

    def _no_value(self, what: str, advice: str) -> ExpressionError:
        return ExpressionError(
            f"{self} is decided later and has {what} now; {advice}, or read the value in force: `.current_choice` of "
            "a mutable, `.evaluate(architecture)` of a formula"
        )
