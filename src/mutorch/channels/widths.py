"""How wide a unit may be: rules that a user gives."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mutorch.errors import SpaceError

RATIOS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Widths:
    """Which widths the units that `pattern` names may have; `widths` makes one."""

    pattern: str
    ratios: tuple[float, ...] | None
    counts: tuple[int, ...] | None
    divisor: int

    def choices(self, num_channels: int, width: int) -> list[int]:
        """The numbers of channels of a unit, ascending; the whole unit is always among them.

        Args:
            width: how many positions a channel has in the tensor that makes it.
        """
        step = self.divisor // math.gcd(self.divisor, width)
        while step > 1 and num_channels // step < 2:
            step //= 2  # a unit of 12 channels and a divisor of 8: multiples of 4
        if self.counts is not None:
            wanted = [count for count in self.counts if 1 <= count <= num_channels]
        else:
            wanted = [math.ceil(round(num_channels * ratio / step, 6)) * step for ratio in self.ratios or ()]
        kept = {min(max(count, 1), num_channels) for count in wanted}
        return sorted(kept | {num_channels})


def widths(
    pattern: str = "*",
    *,
    ratios: Sequence[float] | None = None,
    counts: Sequence[int] | None = None,
    divisor: int = 8,
) -> Widths:
    """A rule for `searchable`: the widths of the units whose names match.

    Args:
        pattern: a glob over unit names, which are the paths of the modules that make the channels.
        ratios: shares of the unit, each above 0 and up to 1; (0.25, 0.5, 0.75, 1) unless `counts` are given.
        counts: numbers of channels instead; those above a unit's own are left out.
        divisor: ratios are rounded up to multiples of it, counted in positions of the tensor, so that kernels stay fast;
            a unit that is too small for it takes a smaller power of two.

    Errors:
        SpaceError: both ratios and counts, or one out of range.

    Example:
        >>> widths(ratios=(0.5, 1.0)).choices(48, 1), widths(counts=(10, 20)).choices(48, 1)
        ([24, 48], [10, 20, 48])
    """
    if ratios is not None and counts is not None:
        raise SpaceError(f"widths({pattern!r}) takes ratios or counts, not both")
    for ratio in ratios or ():
        if isinstance(ratio, bool) or not 0 < ratio <= 1:
            raise SpaceError(f"a ratio of widths({pattern!r}) must be above 0 and at most 1, got {ratio!r}")
    for count in counts or ():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise SpaceError(f"a count of widths({pattern!r}) must be an int of at least 1, got {count!r}")
    if not isinstance(divisor, int) or isinstance(divisor, bool) or divisor < 1:
        raise SpaceError(f"the divisor of widths({pattern!r}) must be an int of at least 1, got {divisor!r}")
    if counts is not None:
        return Widths(pattern, None, tuple(counts), divisor)
    return Widths(pattern, tuple(ratios) if ratios is not None else RATIOS, None, divisor)
