"""How much of the differences in score a decision explains."""

from collections.abc import Iterable, Sequence

import numpy as np

from mutorch.search.trial import Trial
from mutorch.space import Architecture, Choice, SearchSpace
from mutorch.space.decision import key

from .quantities import Quantity, Searched, Values, interesting, objectives_of


def importance(history: Searched, space: SearchSpace | None = None) -> dict[str, float]:
    """Each decision's share of the variance of the score, taken alone: 0 tells nothing, 1 decides all.

    The scores are grouped by the decision's choice; the share is that of the variance between groups (epsilon squared, which is 0 on
    average for a decision that does not matter, however many choices it has). What decisions do only together is not seen.

    Args:
        space: of the search; says which decisions are hidden inside of candidates that were not chosen, and do not count there.

    Example:
        >>> from mutorch.search import History, Trial
        >>> trials = [Trial(i, {"op": "ab"[i % 2], "size": i // 2 % 2}, i % 2) for i in range(8)]
        >>> importance(History(trials))
        {'op': 1.0, 'size': 0.0}
    """
    one = objectives_of(history)[0]
    trials, scores = ranked(history, one)
    if len(scores):
        # A few scores far below all others would be all of the variance.
        scores = np.clip(scores, *interesting(scores, one.sign, np.array([])))
    return {name: _explained(trials, scores, name, space) for name in decision_names(history, space)}


def ranked(history: Searched, one: Quantity) -> tuple[list[Trial], Values]:
    """The trials with finite numbers that keep to all constraints, and these; all with finite numbers where none does."""
    values = one.of(history.trials)
    chosen = [n for n, trial in enumerate(history.trials) if np.isfinite(values[n]) and trial.is_feasible]
    chosen = chosen or np.flatnonzero(np.isfinite(values)).tolist()
    return [history.trials[n] for n in chosen], values[chosen]


def decision_names(history: Searched, space: SearchSpace | None) -> list[str]:
    """The decisions, in the order of the space, or of the trials' architectures."""
    if space is not None:
        return list(space.names)
    return list(dict.fromkeys(name for trial in history.trials for name in trial.architecture))


def is_active(name: str, architecture: Architecture, space: SearchSpace | None) -> bool:
    """Whether a decision is there and matters in an architecture, as far as is known."""
    return name in architecture and (space is None or space.is_active(name, architecture))


def choices_of(name: str, trials: Sequence[Trial], space: SearchSpace | None) -> list[Choice]:
    """The choices of a decision: those of the space, or those that trials have, numbers in order."""
    if space is not None:
        return list(space[name].choices)
    return distinct(trial.architecture[name] for trial in trials if name in trial.architecture)


def distinct(choices: Iterable[Choice]) -> list[Choice]:
    """Each choice once, numbers in order.

    Example:
        >>> distinct([5, 3, 5]), distinct(["skip", "conv", "skip"])
        ([3, 5], ['conv', 'skip'])
    """
    found = list({key(choice): choice for choice in choices}.values())
    return sorted(found, key=None if all(isinstance(one, int | float) for one in found) else str)


def _explained(
    trials: Sequence[Trial],
    scores: Values,
    name: str,
    space: SearchSpace | None,
) -> float:
    active = [n for n, trial in enumerate(trials) if is_active(name, trial.architecture, space)]
    own = scores[active]
    if len(own) < 3:
        return 0.0
    # Scores that span most of what a float holds would overflow when squared.
    own = own / max(float(np.abs(own).max()), np.finfo(float).tiny)
    total = float(((own - own.mean()) ** 2).sum())
    groups: dict[object, list[float]] = {}
    for number, score in zip(active, own, strict=True):
        groups.setdefault(key(trials[number].architecture[name]), []).append(float(score))
    left = len(own) - len(groups)
    if total <= 1e-24 or len(groups) < 2 or left < 1:
        return 0.0
    within = sum(float(((np.array(group) - np.mean(group)) ** 2).sum()) for group in groups.values())
    return max(0.0, 1 - within / left * (len(own) - 1) / total)
