"""Which architectures a training step uses: a pure function of seed and step, so that all ranks agree unasked."""

from mutorch.errors import ConfigError
from mutorch.space import Architecture, SearchSpace, random_at


def single_path(space: SearchSpace, seed: int, step: int) -> Architecture:
    """One uniform architecture (SPOS, arXiv 1904.00420).

    Example:
        >>> from mutorch.space import Decision
        >>> space = SearchSpace([Decision("op", ("a", "b", "c"))])
        >>> single_path(space, 0, 5) == single_path(space, 0, 5)
        True
    """
    return space.sample(random_at(seed, "single path", step))


def strict_fair(space: SearchSpace, seed: int, step: int) -> list[Architecture]:
    """As many architectures as the largest decision has choices, which use every choice equally often.

    Strict fairness (FairNAS, arXiv 1907.01845): each decision goes through its choices in a random order, without
    replacement. A decision with fewer choices than the largest starts its order again; a choice is then used at most once
    more than another. Where that breaks constraints of the space, the nearest allowed architecture takes its place, and
    choices are used as equally as the constraints let them.
    """
    rng = random_at(seed, "strict fair", step)
    count = max((len(decision.choices) for decision in space), default=1)
    columns = {}
    for decision in space:
        order = list(decision.choices)
        rng.shuffle(order)
        columns[decision.name] = [order[number % len(order)] for number in range(count)]
    return [space.repair({name: column[number] for name, column in columns.items()}) for number in range(count)]


def sandwiched(space: SearchSpace, seed: int, step: int, num_random: int = 2) -> list[Architecture]:
    """The largest architecture, the smallest, and uniform ones between them: what a `sandwich_step` trains.

    Errors:
        ConfigError: a number of random architectures below zero.

    Example:
        >>> from mutorch.space import Decision
        >>> space = SearchSpace([Decision("width", (8, 16, 32))])
        >>> [architecture["width"] for architecture in sandwiched(space, 0, 7)][:2]
        [32, 8]
    """
    if isinstance(num_random, bool) or not isinstance(num_random, int) or num_random < 0:
        raise ConfigError(f"num_random must be an int of at least 0, got {num_random!r}")
    between = [space.sample(random_at(seed, "sandwich", step, number)) for number in range(num_random)]
    return [space.max, space.min, *between]
