"""What a pool must do, for any pool: the same search as in one process, and errors that come back."""

import random

import numpy as np
import torch

from mutorch.errors import ConfigError, WorkerError
from mutorch.search import Evaluation, Outcome, PoolFactory, search_space
from mutorch.search.pools import InProcess
from mutorch.space import Architecture, Decision, SearchSpace


def check_pool(factory: PoolFactory, *, num_trials: int = 24, seeds: tuple[int, ...] = (0, 1)) -> None:
    """Nothing, if a pool evaluates as a search of one process does.

    Checked: searches have the same trials as in one process, in the same order, with evaluations that draw from all global generators;
    each trial that was submitted gives one outcome; errors come back with their type, text and the note of their trial, and the
    pool goes on after them; a result that is no number is an error; a pool that is left early ends.

    A pool whose processes all call this, as `Ranks` does, is checked on all of them.

    Args:
        factory: as for `workers` of `search`.
        num_trials, seeds: how many searches, and how long.

    Errors:
        WorkerError: says what is different.

    Example:
        >>> check_pool(InProcess, num_trials=4)
    """
    for seed in seeds:
        _check_search(factory, num_trials, seed)
    _check_outcomes(factory)
    with factory(Evaluation(noisy_sum, 0)) as pool:
        pool.submit(0, SPACE.sample(0))
        pool.submit(1, SPACE.sample(1))


SPACE = SearchSpace([Decision(f"block{number}", (1, 2, 3)) for number in range(4)])


def noisy_sum(architecture: Architecture) -> dict[str, float]:
    """A result that depends on the architecture and on all global generators."""
    drawn = torch.rand(()).item() + random.random() + float(np.random.rand())
    return {"score": sum(_number(choice) for choice in architecture.values()) + drawn, "drawn": drawn}


def partly_wrong(architecture: Architecture) -> object:
    """An error for 1, no number for 2, a number for 3 as the first choice."""
    first = next(iter(architecture.values()))
    if first == 1:
        raise LookupError("no such block")
    return "two" if first == 2 else 3.0


def _number(choice: object) -> float:
    return float(choice) if isinstance(choice, int) else 0.0


def _check_search(factory: PoolFactory, num_trials: int, seed: int) -> None:
    expected, found = (
        search_space(SPACE, noisy_sum, num_trials=num_trials, seed=seed, workers=workers)
        for workers in (InProcess, factory)
    )
    if len(expected) != len(found):
        raise WorkerError(f"the pool's search has {len(found)} trials, and that of one process {len(expected)}")
    for one, other in zip(expected, found, strict=True):
        for name in ("index", "architecture", "metrics", "score"):
            if getattr(one, name) != getattr(other, name):
                raise WorkerError(
                    f"trial {one.index} with seed {seed} has {name} {getattr(other, name)}, and {getattr(one, name)} in one process"
                )


def _check_outcomes(factory: PoolFactory) -> None:
    wanted: dict[int, tuple[type[Exception] | None, str]] = {
        1: (LookupError, "no such block"),
        2: (ConfigError, "evaluate must return a number or a dict of numbers, and returned str"),
        3: (None, ""),
    }
    architectures = [{**SPACE.sample(0), "block0": number} for number in (3, 1, 2, 1, 3)]
    with factory(Evaluation(partly_wrong, 0)) as pool:  # type: ignore[arg-type]  # it is wrong on purpose
        for index, architecture in enumerate(architectures):
            pool.submit(index, architecture)
        outcomes = {outcome.index: outcome for outcome in (pool.result() for _ in architectures)}
    if sorted(outcomes) != list(range(len(architectures))):
        raise WorkerError(f"of trials 0 to {len(architectures) - 1}, the pool gave results of {sorted(outcomes)}")
    for index, architecture in enumerate(architectures):
        _check_outcome(outcomes[index], *wanted[architecture["block0"]])


def _check_outcome(outcome: Outcome, kind: type[Exception] | None, text: str) -> None:
    where, error = f"trial {outcome.index} should give", outcome.error
    if kind is None:
        if error is not None or outcome.result != 3.0:
            raise WorkerError(f"{where} 3.0, and gives {outcome.result if error is None else repr(error)}")
        return
    if not isinstance(error, kind) or text not in str(error):
        raise WorkerError(f"{where} {kind.__name__} with {text!r}, and gives {error!r}")
    if not any(f"trial {outcome.index}" in note for note in getattr(error, "__notes__", ())):
        raise WorkerError(f"the error of trial {outcome.index} came without the note that says whose it is")
