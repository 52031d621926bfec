"""Channel numbers that divide evenly."""

import warnings

from mutorch.errors import ConfigError


def make_divisible(value: float, divisor: int, min_value: int | None = None, min_ratio: float = 0.9) -> int:
    """The multiple of `divisor` nearest to `value`, never far below it.

    A result under `min_ratio * value` is raised by one divisor. `min_value` (default: `divisor`)
    is the least result; it is returned as it is, even where it is not a multiple itself.
    The rounding is that of MobileNet's reference code: to the nearest multiple, halves up.

    Example:
        >>> make_divisible(39, 8), make_divisible(34, 8), make_divisible(10, 8)
        (40, 32, 16)
    """
    if divisor < 1:
        raise ConfigError(f"divisor must be 1 or more, got {divisor}")
    if min_value is None:
        min_value = divisor
    elif min_value < divisor:
        # Python's default filter shows this once for each calling line.
        warnings.warn(f"min_value {min_value} is below the divisor {divisor}; using {divisor}", stacklevel=2)
        min_value = divisor
    rounded = max(min_value, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < min_ratio * value else rounded
