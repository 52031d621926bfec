"""One decision of a search space: a name, the choices it has, and when it matters."""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mutorch.errors import ChoiceError, SpaceError, nearest

Choice = Any
"""A plain value: str, int, float, bool, or a list of them."""
Architecture = dict[str, Choice]
"""Decision name to choice: JSON-able, in the order of the space."""


def plain(value: Choice) -> Choice:
    """`value` as JSON knows it: tuples become lists, NumPy scalars Python numbers.

    Errors:
        SpaceError: for anything else (a module, a tensor, a set, a float that is not a number).
    """
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if value != value:  # nan, which no look-up finds again
        raise SpaceError("a choice must be a plain value that equals itself, got nan")
    if type(value) in (str, int, float, bool):
        return value
    raise SpaceError(
        f"a choice must be a plain value (str, int, float, bool or a list of them), "
        f"got {value!r} of type {type(value).__name__}"
    )


def key(value: Choice) -> Hashable:
    """What a choice is looked up by: lists are not hashable, tuples are; 120.0 finds 120."""
    return tuple(key(item) for item in value) if isinstance(value, list | tuple) else value


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """One name in a search space, and what it may be set to.

    Args:
        name: unique in its space.
        choices: plain values, without repetition, in the order that `encode` numbers them.
        default: the choice of a model that nobody searched; the first unless given.
        largest, smallest: what `SearchSpace.max` and `min` take. Numbers are compared; other choices have no
            order, so both are the default unless given.
        when: `(decision, choice)` pairs of which at least one must hold for this decision to matter: it sits inside
            that candidate. Empty: it always matters.

    Example:
        >>> depth = Decision("depth", (2, 3, 4))
        >>> depth.largest, depth.default, depth.index(3)
        (4, 2, 1)
    """

    name: str
    choices: tuple[Choice, ...]
    default: Choice = None
    largest: Choice = None
    smallest: Choice = None
    when: tuple[tuple[str, Choice], ...] = ()
    _index: dict[Hashable, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        choices = tuple(plain(choice) for choice in self.choices)
        if not self.name or not isinstance(self.name, str):
            raise SpaceError(f"a decision's name must be a non-empty string, got {self.name!r}")
        if not choices:
            raise SpaceError(f"decision {self.name!r} has no choices")
        index = {key(choice): number for number, choice in enumerate(choices)}
        if len(index) != len(choices):
            raise SpaceError(f"decision {self.name!r} lists a choice twice: {choices}")
        put = object.__setattr__  # the dataclass is frozen from here on
        put(self, "choices", choices)
        put(self, "_index", index)
        put(self, "when", tuple((name, plain(choice)) for name, choice in self.when))
        default = choices[0] if self.default is None else self.canonical(self.default)
        numbers = all(isinstance(choice, int | float) for choice in choices)
        high, low = (max(choices), min(choices)) if numbers else (default, default)
        put(self, "default", default)
        put(self, "largest", high if self.largest is None else self.canonical(self.largest))
        put(self, "smallest", low if self.smallest is None else self.canonical(self.smallest))

    @property
    def numbers(self) -> Mapping[Hashable, int]:
        """The number of each choice; lists are tuples here."""
        return self._index

    def index(self, choice: Choice) -> int:
        """The number of `choice` in `choices`.

        Errors:
            ChoiceError: not one of the choices.
        """
        try:
            return self._index[key(choice)]
        except (KeyError, TypeError):
            raise ChoiceError(
                f"decision {self.name!r} has no choice {choice!r}; {nearest(choice, self.choices)}"
            ) from None

    def canonical(self, choice: Choice) -> Choice:
        """`choice` as the space spells it: 120.0 gives 120, a tuple the list.

        Errors:
            ChoiceError: not one of the choices.
        """
        return self.choices[self.index(choice)]

    def allows(self, choice: Choice) -> bool:
        """Whether `choice` is one of the choices."""
        try:
            return key(choice) in self._index
        except TypeError:
            return False

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description; `from_dict` reads it."""
        return {
            "name": self.name,
            "choices": list(self.choices),
            "default": self.default,
            "largest": self.largest,
            "smallest": self.smallest,
            "when": [list(condition) for condition in self.when],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Decision":
        """The decision that `to_dict` described."""
        try:
            return cls(
                name=data["name"],
                choices=tuple(data["choices"]),
                default=data.get("default"),
                largest=data.get("largest"),
                smallest=data.get("smallest"),
                when=tuple(_pair(condition) for condition in data.get("when", ())),
            )
        except KeyError as error:
            raise SpaceError(f"a decision needs the key {error}; got {sorted(data)}") from None

    def __eq__(self, other: object) -> bool:
        # As text, like the fingerprint of a space: 1 and 1.0 are different choices to whoever computes with them.
        return isinstance(other, Decision) and json.dumps(self.to_dict()) == json.dumps(other.to_dict())

    def __hash__(self) -> int:
        return hash((self.name, tuple(self._index)))


def _pair(condition: Sequence[Any]) -> tuple[str, Choice]:
    if len(condition) != 2:
        raise SpaceError(f"a condition is a pair (decision, choice), got {condition!r}")
    return condition[0], condition[1]
