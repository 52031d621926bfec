"""Ranges of an `arch_setting`, `[min, max, step]`, and the mutables that choose from them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mutorch.errors import ConfigError, nearest
from mutorch.mutables import BaseMutableChannel, OneShotMutableChannel, OneShotMutableValue, SimpleMutableChannel

Range = Sequence[float] | Mapping[str, Sequence[float]]
"""`[min, max, step]`, both ends included, or `{"choices": [...]}`."""
CLOSE = 1e-9
"""A range of floats may end this far from its max."""


def checked_ranges(arch_setting: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The ranges of an `arch_setting`, if it has these keys and no others.

    Errors:
        ConfigError: a key that is missing or unknown.
    """
    if not isinstance(arch_setting, Mapping):
        raise ConfigError(
            f"arch_setting is a dict of ranges with the keys {', '.join(keys)}, got {type(arch_setting).__name__}"
        )
    for key in arch_setting:
        if key not in keys:
            raise ConfigError(f"arch_setting has no {key!r}; {nearest(key, keys)}")
    for key in keys:
        if key not in arch_setting:
            raise ConfigError(f"arch_setting lacks {key!r}, ranges [min, max, step]")
    return dict(arch_setting)


def checked_length(name: str, values: Sequence[Any], count: int, what: str) -> list[Any]:
    """The values as a list, if there are `count`.

    Errors:
        ConfigError: more or fewer.
    """
    if isinstance(values, str) or len(values) != count:
        raise ConfigError(f"{name} must have {count} entries, {what}, got {values!r}")
    return list(values)


def values_of(name: str, given: Range, scale: Callable[[float], Any] | None = None) -> list[Any]:
    """The values of a range, ascending, each once.

    Args:
        scale: what becomes of each.

    Errors:
        ConfigError: neither `[min, max, step]`, with a max that steps of this size reach, nor `{"choices": [...]}`.

    Example:
        >>> values_of("kernel_size", [3, 7, 2]), values_of("expand_ratio", {"choices": [3, 4, 6]})
        ([3, 5, 7], [3, 4, 6])
    """
    if isinstance(given, Mapping):
        values = given.get("choices")
        if (
            list(given) != ["choices"]
            or not isinstance(values, Sequence)
            or not values
            or not all(map(_is_positive, values))
        ):
            raise ConfigError(f'{name} must be ranges [min, max, step] or {{"choices": [...]}}, got {given!r}')
    else:
        values = _steps(name, given)
    return sorted({value if scale is None else scale(value) for value in values})


def value_of(values: list[Any], alias: str) -> Any:
    """A mutable that chooses from several values; the value where there is one."""
    kind = int if all(float(value).is_integer() for value in values) else float
    same = [kind(value) for value in values]
    return same[0] if len(same) == 1 else OneShotMutableValue(same, alias=alias)


def width_of(values: list[int], alias: str) -> BaseMutableChannel:
    """A mutable of channels that chooses from several numbers; all channels where there is one."""
    if len(values) == 1:
        return SimpleMutableChannel(values[0])
    return OneShotMutableChannel(values[-1], values, alias=alias)


def _steps(name: str, given: Sequence[float]) -> list[float]:
    if not isinstance(given, Sequence) or len(given) != 3 or not all(map(_is_positive, given)) or given[0] > given[1]:
        raise ConfigError(f'{name} must be ranges [min, max, step] or {{"choices": [...]}}, got {given!r}')
    low, high, step = given
    count = round((high - low) / step)
    if abs(low + count * step - high) > CLOSE:
        raise ConfigError(f"{name} has the range {given!r}: steps of {step} from {low} do not end at {high}")
    return [low + number * step for number in range(count + 1)]


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
