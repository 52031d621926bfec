"""What a search is after: objectives to maximise or minimise, and bounds on what is only known after an evaluation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mutorch.cost import METRICS, Costs
from mutorch.errors import ConfigError, CostError, nearest

SCORE = "score"
"""What a result is called that is a number, not a dict."""


@dataclass(frozen=True, slots=True)
class Objectives:
    """Reads what an evaluation returned.

    Attributes:
        names: what to maximise, or with a minus before it to minimise: entries of the result (`"accuracy"`, `"-loss"`; `"score"`
            where it is a number) or costs (`"-macs"`). None: the number, or the first entry of the dict.
        constraints: bounds on the same things, as (lower, upper).

    Example:
        >>> aims = Objectives.parse(["accuracy", "-loss"], {"loss": 2.0})
        >>> aims.read({"accuracy": 0.5, "loss": 3.0}, None)
        Reading(values=(0.5, -3.0), metrics={'accuracy': 0.5, 'loss': 3.0}, violation=0.5)
    """

    names: tuple[str, ...] = ()
    constraints: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def parse(cls, objective: str | Sequence[str] | None, constraints: Mapping[str, Any] | None = None) -> "Objectives":
        """The objectives that these arguments of `search` say.

        Errors:
            ConfigError: names that are no texts or stand there twice, or bounds that cannot be read.
        """
        if isinstance(objective, Mapping | set | frozenset) or (objective is not None and not objective):
            raise ConfigError(
                f"an objective is a name, or a list of names, with a minus before those to minimise, got {objective!r}"
            )
        names = () if objective is None else (objective,) if isinstance(objective, str) else tuple(objective)
        if not all(isinstance(name, str) and name.lstrip("-") for name in names):
            raise ConfigError(
                f'an objective is a name such as "accuracy" or "-macs", or a list of them, got {objective!r}'
            )
        plain = [name.lstrip("-") for name in names]
        twice = sorted({name for name in plain if plain.count(name) > 1})
        if twice:
            raise ConfigError(f"the objective {twice[0]!r} is there twice in {list(names)}")
        if constraints is not None and not isinstance(constraints, Mapping):
            raise ConfigError(f'constraints is a dict such as {{"latency_ms": 12.0}}, got {type(constraints).__name__}')
        return cls(names, {name: _bounds(name, bound) for name, bound in (constraints or {}).items()})

    def read(self, result: Any, costs: Costs | None) -> "Reading":
        """The values of the objectives, all to be maximised, and how far the constraints are missed.

        Errors:
            ConfigError: a result without the entries that are named, or with something else than numbers in it.
        """
        plain = as_plain(result)
        if plain == {}:
            raise ConfigError("evaluate returned no entries, an empty dict; return what to maximise")
        metrics = plain if isinstance(plain, dict) else {}
        known = plain if isinstance(plain, dict) else {SCORE: plain}
        names = self.names or (next(iter(known)),)
        values = tuple(_signed(name, known, costs, isinstance(result, Mapping)) for name in names)
        return Reading(values, metrics, self._violation(known, costs, isinstance(result, Mapping)))

    def _violation(self, known: Mapping[str, float], costs: Costs | None, is_dict: bool) -> float:
        """The sum of relative distances to the bounds; 0 where all hold."""
        total = 0.0
        for name, (low, high) in self.constraints.items():
            value = _look_up(name, known, costs, is_dict)
            if math.isnan(value):
                return math.inf
            for bound, distance in ((low, low - value), (high, value - high)):
                if math.isfinite(bound) and distance > 0:
                    total += distance / max(abs(bound), 1e-12)
        return total

    def to_dict(self) -> dict[str, Any]:
        """What a log keeps of it."""
        bounds = {
            name: [None if not math.isfinite(bound) else bound for bound in pair]
            for name, pair in self.constraints.items()
        }
        return {"objective": list(self.names), "constraints": bounds}


@dataclass(frozen=True, slots=True)
class Reading:
    """One result, read.

    Attributes:
        values: of the objectives, all to be maximised; not-a-number is the worst there is.
        metrics: the entries of the result; none where it is a number.
        violation: 0 where all constraints hold.
    """

    values: tuple[float, ...]
    metrics: Mapping[str, float]
    violation: float


def as_score(value: float) -> float:
    """The score that ranks: not-a-number is worst."""
    return -math.inf if math.isnan(value) else value


def as_plain(result: Any) -> float | dict[str, float]:
    """The result of an evaluation in plain numbers, of tensors and NumPy's too.

    Errors:
        ConfigError: something else than a number or a dict of numbers.
    """
    if isinstance(result, Mapping):
        for name in result:
            if not isinstance(name, str):
                raise ConfigError(f"the entries of what evaluate returns have texts as names, got {name!r}")
        return {name: _number(name, value) for name, value in result.items()}
    return _number(SCORE, result)


def _number(name: str, value: Any) -> float:
    try:
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        what = "evaluate must return a number or a dict of numbers"
        where = "" if name == SCORE else f" as its {name!r}"
        shown = type(value).__name__ + (f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else "")
        raise ConfigError(f"{what}, and returned {shown}{where}") from None


def _signed(name: str, known: Mapping[str, float], costs: Costs | None, is_dict: bool) -> float:
    plain = name.removeprefix("-")
    value = _look_up(plain, known, costs, is_dict)
    return as_score(-value if plain != name else value)


def _look_up(name: str, known: Mapping[str, float], costs: Costs | None, is_dict: bool) -> float:
    if name in known:
        return known[name]
    try:
        if costs is not None:
            return float(costs[name])
    except (CostError, AttributeError):
        pass
    if not is_dict and name != SCORE:
        raise ConfigError(
            f"the objective {name!r} names an entry of what evaluate returns, and that is no dict but a number; return a "
            f"dict, or leave the objective out{'' if costs is not None else '; costs need example_inputs or a table'}"
        )
    hint = "; costs need example_inputs or a table" if costs is None and name in METRICS else ""
    raise ConfigError(f"evaluate returned no {name!r}; {nearest(name, known)}{hint}")


def _bounds(name: str, bound: Any) -> tuple[float, float]:
    if name.startswith("-"):
        raise ConfigError(f"constraint on {name!r}: constraints take no minus; write (lower, upper) of {name[1:]!r}")
    low, high = bound if isinstance(bound, tuple | list) and len(bound) == 2 else (None, bound)
    try:
        lower = -math.inf if low is None else float(low)
        upper = math.inf if high is None else float(high)
    except (TypeError, ValueError):
        raise ConfigError(
            f"constraint on {name!r}: cannot read {bound!r}; write a number (at most that), or a pair (lower, upper)"
        ) from None
    if math.isnan(lower) or math.isnan(upper):
        raise ConfigError(f"constraint on {name!r}: {bound!r} is no number to compare with")
    if not lower <= upper:
        raise ConfigError(f"constraint on {name!r}: the lower bound {low!r} is above the upper bound {high!r}")
    return lower, upper
