"""Where random numbers of the plain-Python parts come from: always an argument, never a global generator."""

import random

RandomSource = int | random.Random
"""What every `rng` argument takes: a seed, or a generator that is then advanced."""


def as_random(rng: RandomSource | None) -> random.Random:
    """The generator to draw from; a seed makes a new one, `None` one seeded by the operating system.

    Example:
        >>> as_random(0).random() == as_random(0).random()
        True
    """
    if isinstance(rng, random.Random):
        return rng
    if rng is not None and (isinstance(rng, bool) or not isinstance(rng, int)):
        raise TypeError(f"rng must be an int seed or a random.Random, got {type(rng).__name__}")
    return random.Random(rng)


def random_at(seed: int, *position: int | str) -> random.Random:
    """A generator that is a pure function of a seed and a position: equal in every process and on every rank.

    Example:
        >>> random_at(0, "step", 7).random() == random_at(0, "step", 7).random()
        True
    """
    # Seeding with a string hashes it (sha512), unlike `hash`, which differs between processes.
    return random.Random("/".join(str(part) for part in (seed, *position)))
