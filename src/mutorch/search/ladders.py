"""Decisions whose choices have an order."""

from mutorch.space import Choice, SearchSpace


def ladders(space: SearchSpace) -> dict[str, list[Choice]]:
    """The decisions that have an order, and their choices from the smallest: numbers, or sizes such as `[224, 224]`.

    Example:
        >>> from mutorch.space import Decision
        >>> ladders(SearchSpace([Decision("width", (16, 8)), Decision("op", ("a", "b")), Decision("one", (3,))]))
        {'width': [8, 16]}
    """
    found: dict[str, list[Choice]] = {}
    for decision in space:
        keys = [_order(choice) for choice in decision.choices]
        if len(keys) > 1 and all(key is not None and len(key) == len(keys[0] or ()) for key in keys):
            found[decision.name] = sorted(decision.choices, key=lambda choice: _order(choice) or ())
    return found


def _order(choice: Choice) -> tuple[float, ...] | None:
    parts = choice if isinstance(choice, list | tuple) else (choice,)
    numbers = [part for part in parts if isinstance(part, int | float) and not isinstance(part, bool)]
    return tuple(numbers) if numbers and len(numbers) == len(parts) else None
