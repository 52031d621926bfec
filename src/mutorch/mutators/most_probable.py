"""The most probable architecture where the most probable choices break a constraint together."""

from collections.abc import Collection, Mapping

from mutorch.errors import SpaceError
from mutorch.space import Architecture, Choice, SearchSpace
from mutorch.space.tied import LISTED, Tied

LogProbabilities = Mapping[str, Mapping[int, float]]
"""Learned decision -> the log-probability of each of its choices, by number."""


def most_probable(
    space: SearchSpace, best: Architecture, log_probabilities: LogProbabilities, exclude: Collection[str]
) -> Architecture:
    """`best`, with the most probable allowed choices where constraints are broken.

    Args:
        best: the most probable choices, one by one.
        exclude: candidates that are never chosen.

    Errors:
        SpaceError: nothing allowed that is not excluded, or too many combinations.
    """
    found = dict(best)
    for tie in space.ties:
        if tie.broken(best):
            found |= _best_of(tie, best, log_probabilities, exclude)
    return found


def _best_of(
    tie: Tied, best: Mapping[str, Choice], log_probabilities: LogProbabilities, exclude: Collection[str]
) -> Architecture:
    """The allowed choices of tied decisions that change the fewest unlearned ones and, of these, are the most probable."""
    if tie.combinations > LISTED:
        raise SpaceError(
            f"the most probable choices break {tie}, which tie {len(tie.names)} decisions together: too many "
            f"combinations ({tie.combinations:,}) to find the most probable one; take space.repair(...) of what is probable"
        )
    ranked: tuple[int, float] | None = None
    found: Architecture = {}
    for values, active in tie.canonical(tie.combinations * len(tie.names)):
        learned = [d for d in tie.decisions if d.name in active and d.name in log_probabilities]
        if any(isinstance(values[d.name], str) and values[d.name] in exclude for d in learned):
            continue
        kept = -sum(values[name] != best[name] for name in active if name not in log_probabilities)
        rank = kept, sum(log_probabilities[d.name][d.index(values[d.name])] for d in learned)
        if ranked is None or rank > ranked:
            ranked, found = rank, {name: values[name] for name in active}
    if ranked is None:
        raise SpaceError(f"nothing that obeys {tie} is left without the excluded candidates {sorted(exclude)}")
    return found
