"""The version number of all choices, for caches of what is computed from them."""

import time


class Clock:
    """A number that grows whenever a choice may have changed; the only global of the library, and it holds no choice.

    What depends on many mutables (a slice of a weight) is kept together with `CLOCK.now` and computed again when that
    has moved on. The number starts at the time of day, so that a cache in a pickle is never taken for a fresh one.

    Attributes:
        now: the number; compare it with `==` only.
    """

    def __init__(self) -> None:
        self.now = time.time_ns()


CLOCK = Clock()


def tick() -> None:
    """Say that a choice has changed. A mutable of yours that masks depend on calls it after each change.

    Example:
        >>> before = CLOCK.now
        >>> tick()
        >>> CLOCK.now == before
        False
    """
    CLOCK.now += 1
