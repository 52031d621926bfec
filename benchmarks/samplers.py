"""How soon each strategy finds what is good, and what it costs to ask it.

Digits: the table of all 256 architectures of the digits chain (see `search_quality`). A search sees the validation accuracy of one
training of each, column `val_s0`, which is as noisy as a user's; the regret of what it has ranked first after 20, 40 and 100
evaluations is how many points of test accuracy, mean of two trainings, that is behind the best of the table. Settings were chosen
on the other training, `val_s1`, and on other seeds.

Fronts: 65 536 architectures of eight decisions whose two objectives are sums, so that the front of 25 points is known. Share of it
that was found after 500, 1000 and 2000 evaluations, and of its hypervolume.

Speed: evolution over 20 decisions through `search_space`, whose evaluation takes no time.
"""

import csv
import itertools
import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from mutorch.search import (
    AHEAD,
    Evaluation,
    Evolution,
    History,
    InProcess,
    Outcome,
    PredictorGuided,
    hypervolume,
    search_space,
)
from mutorch.search.strategies import STRATEGIES, StrategyFactory
from mutorch.space import Architecture, Decision, SearchSpace

TABLE = Path(__file__).parent / "data" / "tabular_digits.csv"
EVALUATIONS = (20, 40, 100)
SEEDS = {name: 50 if name in ("nsga2", "nsga3", "tpe", "cmaes") else 200 for name in STRATEGIES}
FRONT_SEEDS = 3
FRONT_EVALUATIONS = (500, 1000, 2000)
CANDIDATES = 10_000


class LookUp(InProcess):
    """Evaluates without seeding global generators, which a table does not read: that takes longer than all else here."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__(lambda index, architecture: Outcome(index, evaluation.evaluate(architecture), 0.0))


# ---- the digits table ------------------------------------------------------------------------------------------------


class Digits:
    """The table as a search sees it."""

    def __init__(self, column: str = "val_s0") -> None:
        with TABLE.open() as file:
            rows = list(csv.DictReader(file))
        choices = ("skip", "maxpool", "separable", "conv3x3")
        self.space = SearchSpace([Decision(f"block{number}", choices) for number in range(4)])
        self.validation = {tuple(map(int, row["arch"])): float(row[column]) for row in rows}
        self.test = {tuple(map(int, row["arch"])): float(row["test_mean"]) for row in rows}

    def evaluate(self, architecture: Architecture) -> float:
        """The validation accuracy of one training."""
        return self.validation[self.space.encode(architecture)]

    def regrets(self, history: History) -> list[float]:
        """Points of test accuracy behind the best, of what is ranked first after some evaluations."""
        best = max(self.test.values())
        first = [History(history.trials[:count]).best.architecture for count in EVALUATIONS]
        return [100 * (best - self.test[self.space.encode(architecture)]) for architecture in first]


def digits(strategy: str | StrategyFactory, seeds: range, ahead: int = AHEAD, column: str = "val_s0") -> list[float]:
    """The mean regrets over seeds."""
    table = Digits(column)
    found = [
        table.regrets(
            search_space(
                table.space,
                table.evaluate,
                strategy=strategy,
                num_trials=max(EVALUATIONS),
                seed=seed,
                ahead=ahead,
                workers=LookUp,
            )
        )
        for seed in seeds
    ]
    return [float(mean) for mean in np.mean(found, axis=0)]


# ---- a front that is known -------------------------------------------------------------------------------------------


class TwoObjectives:
    """Each decision adds its number to the size, and to the quality with diminishing returns: the best of each size is greedy."""

    objective = ("quality", "-size")
    worst = (-1.0, -25.0)

    def __init__(self, decisions: int = 8, choices: int = 4) -> None:
        self.space = SearchSpace([Decision(f"d{n}", tuple(range(choices))) for n in range(decisions)])
        self._gains = {f"d{n}": [(1 + 0.13 * n) * math.sqrt(k) for k in range(choices)] for n in range(decisions)}
        steps = [high - low for gains in self._gains.values() for low, high in itertools.pairwise(gains)]
        sums = itertools.accumulate([0.0, *sorted(steps, reverse=True)])
        self.front = [(quality, -float(size)) for size, quality in enumerate(sums)]

    def evaluate(self, architecture: Architecture) -> dict[str, float]:
        """Both objectives."""
        quality = sum(self._gains[name][choice] for name, choice in architecture.items())
        return {"quality": quality, "size": sum(architecture.values())}

    def found(self, history: History, count: int) -> tuple[float, float]:
        """The share of the front among the first trials, and of its hypervolume."""
        points = [trial.values for trial in history.trials[:count]]
        hit = sum(any(math.dist(point, known) < 1e-9 for point in points) for known in self.front)
        return hit / len(self.front), hypervolume(points, self.worst) / hypervolume(self.front, self.worst)


def fronts(strategy: str | StrategyFactory, seeds: range) -> dict[int, tuple[float, float]]:
    """After some evaluations, the mean shares of points and of hypervolume."""
    problem = TwoObjectives()
    histories = [
        search_space(
            problem.space,
            problem.evaluate,
            strategy=strategy,
            objective=problem.objective,
            num_trials=max(FRONT_EVALUATIONS),
            seed=seed,
            workers=LookUp,
        )
        for seed in seeds
    ]
    return {
        count: tuple(np.mean([problem.found(history, count) for history in histories], axis=0).tolist())
        for count in FRONT_EVALUATIONS
    }


# ---- speed -----------------------------------------------------------------------------------------------------------


def speed() -> dict[str, float]:
    """Milliseconds a candidate, and seconds to resume; of the processor, but for the log, which waits for the disk."""
    space = SearchSpace([Decision(f"d{n}", ("a", "b", "c", "d")) for n in range(20)])

    def go(strategy: str = "evolution", num_trials: int = CANDIDATES, **options: object) -> Callable[[], History]:
        return lambda: search_space(space, _count, strategy=strategy, num_trials=num_trials, **options)

    found = {}
    for strategy in ("evolution", "regularized", "local", "random"):
        seconds = _seconds(go(strategy), time.process_time)
        found[f"speed, {strategy}: ms of the processor a candidate"] = 1000 * seconds / CANDIDATES
    seconds = _seconds(go(workers=LookUp), time.process_time)
    found["speed, evolution, generators not seeded: ms of the processor a candidate"] = 1000 * seconds / CANDIDATES
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "search.jsonl"
        found["speed, evolution, with a log: ms a candidate"] = 1000 * _seconds(go(log=log)) / CANDIDATES
        found[f"speed, evolution: seconds to resume {CANDIDATES} trials"] = _seconds(go(log=log))
        found[f"speed, evolution: seconds of the processor to resume {CANDIDATES} trials"] = _seconds(
            go(log=log), time.process_time
        )
    few, more = (_seconds(go("predictor", count, workers=LookUp), time.process_time) for count in (500, 550))
    found["speed, predictor: ms of the processor a candidate, 500 to 550 told"] = 1000 * (more - few) / 50
    return found


def _count(architecture: Architecture) -> float:
    return float(sum(choice == "a" for choice in architecture.values()))


def _seconds(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    call()
    return clock() - start


def run() -> dict[str, float]:
    """All figures."""
    found: dict[str, float] = {}
    named: dict[str, str | StrategyFactory] = {name: name for name in STRATEGIES}
    for name, chosen in (named | {"predictor, an ensemble": partial(PredictorGuided, model="ensemble")}).items():
        seeds = SEEDS.get(name, 200)
        for ahead in (AHEAD, 1):
            for count, regret in zip(EVALUATIONS, digits(chosen, range(seeds), ahead), strict=True):
                found[f"digits, {name}, ahead {ahead}: regret after {count}, points"] = regret
                print(f"  digits, {name}, ahead {ahead}, {seeds} seeds, {count}: {regret:.3f}", flush=True)
    large: dict[str, StrategyFactory] = {
        "evolution, population 50": lambda feasible, seed: Evolution(feasible, seed, population=50),
    }
    for name, strategy in {
        **{name: name for name in STRATEGIES if name not in ("cmaes", "tpe")},
        **large,
    }.items():
        for count, (share, volume) in fronts(strategy, range(FRONT_SEEDS)).items():
            found[f"front, {name}: share of points after {count}"] = share
            found[f"front, {name}: share of hypervolume after {count}"] = volume
            print(f"  front, {name}, {count}: {share:.3f} of the points, {volume:.4f} of the volume", flush=True)
    return found | speed()
