"""How many trials of a search were drawn at random before its strategy learned from any: the baseline that comes for free."""

from collections.abc import Mapping
from typing import Any

STARTS: Mapping[str, int] = {"evolution": 20, "regularized": 8, "local": 8, "predictor": 8}
"""How many architectures the strategies that are known by name draw at random first, unless told otherwise."""


def random_start(run: Mapping[str, Any], num_trials: int) -> int | None:
    """The number of trials at the beginning of a search that are as in random search; `None` where the run does not say.

    Args:
        run: `History.run`. What a strategy does that was made by a function is not known.
        num_trials: how many trials there are.

    Example:
        >>> random_start({"strategy": "evolution"}, 100), random_start({"strategy": "random"}, 100), random_start({}, 100)
        (20, 100, None)
    """
    name = str(run.get("strategy"))
    if name == "random":
        return num_trials
    return min(STARTS[name], num_trials) if name in STARTS else None
