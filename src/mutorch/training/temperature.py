"""How the temperature of a Gumbel relaxation falls over a search."""

import math
from dataclasses import dataclass

from mutorch.errors import ConfigError, nearest

SHAPES = ("linear", "exponential", "cosine")


@dataclass(frozen=True, slots=True)
class Temperature:
    """A temperature for each moment of a search, from `start` to `end`; see `Mutator.set_temperature`.

    Args:
        start, end: at the beginning and at the end.
        shape: `"linear"` (GDAS, arXiv 1910.04465), `"exponential"` (SNAS, arXiv 1812.09926) or `"cosine"`.

    Errors:
        ConfigError: a temperature that is not positive, or another shape.

    Example:
        >>> temperature = Temperature(10.0, 0.1, "exponential")
        >>> [round(temperature(done), 2) for done in (0, 0.5, 1)]
        [10.0, 1.0, 0.1]
    """

    start: float = 10.0
    end: float = 0.1
    shape: str = "linear"

    def __post_init__(self) -> None:
        for value in (self.start, self.end):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigError(f"a temperature must be a positive number, got {value!r}")
        if self.shape not in SHAPES:
            raise ConfigError(f"no shape {self.shape!r} of a temperature; {nearest(self.shape, SHAPES)}")

    def __call__(self, done: float) -> float:
        """The temperature when a share `done` of the search is over; 0 and 1 stand for all before and after."""
        done = min(1.0, max(0.0, done))
        if self.shape == "exponential":
            return self.start * math.exp(done * math.log(self.end / self.start))
        share = done if self.shape == "linear" else (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * share
