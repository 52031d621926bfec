"""The suite that every search strategy must pass: subclass it in a test file, and pytest runs it."""

import math
import random
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mutorch.cost import CostTable
from mutorch.cost.factors import Factors
from mutorch.search import Feasible, History, Strategy, StrategyFactory, search_space
from mutorch.search.evaluation import seeded
from mutorch.space import Architecture, Decision, Ref, SearchSpace

AHEAD = (1, 3, 8, 1)
"""How many trials are under way at once in the tests, for each of the spaces."""


class StrategySuite:
    """Tests of one strategy, in searches of small spaces of every kind.

    Attributes:
        asks_everything: whether it ends only when every architecture was asked for.
        takes_several_objectives: whether it can maximise several at once.
        num_trials: of a search in which it has begun to learn.

    Example:
        >>> from mutorch.search import RandomSearch
        >>> class TestRandomSearch(StrategySuite):
        ...     def make(self, feasible, seed):
        ...         return RandomSearch(feasible, seed)
        >>> TestRandomSearch().test_a_small_space_is_asked_for_completely()
    """

    asks_everything: ClassVar[bool] = True
    takes_several_objectives: ClassVar[bool] = True
    num_trials: ClassVar[int] = 30

    # ---- what a subclass says ----------------------------------------------------------------------------------------

    def make(self, feasible: Feasible, seed: int) -> Strategy:
        """The strategy."""
        raise NotImplementedError

    # ---- tests -------------------------------------------------------------------------------------------------------

    def test_it_asks_for_the_same_where_it_is_told_the_same(self) -> None:
        for space, ahead in zip(spaces().values(), AHEAD, strict=True):
            first, second = (_asked(self._search(space, ahead=ahead)) for _ in range(2))
            assert first == second, f"two searches of {space} differ, with {ahead} under way at once"

    def test_it_neither_reads_nor_changes_global_generators(self) -> None:
        space = spaces()["plain"]
        found = []
        for seed in (0, 1):
            with seeded(seed, 0):
                before = _global_states()
                found.append(_asked(self._search(space)))
                after = _global_states()
            assert before == after, "the search left a global generator in another state"
        assert found[0] == found[1], "what is asked for depends on a global generator"

    def test_a_search_resumes_from_its_log(self) -> None:
        for ahead in (1, 8):
            with tempfile.TemporaryDirectory() as folder:
                log = Path(folder) / "search.jsonl"
                for num_trials in (self.num_trials // 2, self.num_trials):
                    resumed = self._search(spaces()["nested"], ahead=ahead, log=log, num_trials=num_trials)
            assert _asked(resumed) == _asked(self._search(spaces()["nested"], ahead=ahead))

    def test_everything_asked_for_is_new_canonical_and_obeys_the_rules_of_the_space(self) -> None:
        for space in spaces().values():
            self._check_all(space, self._search(space))

    def test_everything_asked_for_is_within_the_budget(self) -> None:
        for space in spaces().values():
            table = costs_of(space)
            for budget in ({"params": "60%"}, {"params": ("20%", "45%")}):
                # The search itself refuses what is outside.
                self._check_all(space, self._search(space, table=table, budget=budget))

    def test_a_small_space_is_asked_for_completely(self) -> None:
        for name in ("tiny", "nested"):
            space = spaces()[name]
            for ahead in (1, 8):
                history = self._search(space, ahead=ahead, num_trials=space.size + 5)
                self._check_all(space, history)
                assert history.exhausted, f"it asked for more than the {space.size} architectures there are"
                assert len(history) == space.size or not self.asks_everything, (
                    f"it ended after {len(history)} of {space.size} architectures"
                )

    def test_it_goes_on_after_results_that_are_no_number(self) -> None:
        space = spaces()["plain"]

        def evaluate(architecture: Architecture) -> float:
            score = goodness(space, architecture)
            return math.nan if int(1000 * score) % 3 == 0 else -math.inf if int(1000 * score) % 3 == 1 else score

        self._check_all(space, self._search(space, evaluate))

    def test_it_goes_on_after_errors(self) -> None:
        space = spaces()["plain"]

        def evaluate(architecture: Architecture) -> float:
            score = goodness(space, architecture)
            if int(1000 * score) % 2:
                raise RuntimeError("out of memory")
            return score

        self._check_all(space, self._search(space, evaluate, on_error="record"))

    def test_it_goes_on_where_constraints_are_missed(self) -> None:
        space = spaces()["plain"]
        for bound in (0.4, 0.02, {"size": (0.9, None)}):
            constraints = bound if isinstance(bound, dict) else {"size": bound}
            with warnings.catch_warnings():  # a search warns where nothing keeps to them
                warnings.simplefilter("ignore", UserWarning)
                history = self._search(space, objective="quality", constraints=constraints)
            self._check_all(space, history)

    def test_it_takes_several_objectives(self) -> None:
        space = spaces()["nested"]
        if not self.takes_several_objectives:
            return
        for objective, ahead in ((["quality", "-size"], 1), (["quality", "-size", "balance"], 8)):
            found = [self._search(space, objective=objective, ahead=ahead) for _ in range(2)]
            self._check_all(space, found[0])
            assert _asked(found[0]) == _asked(found[1])

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _search(self, space: SearchSpace, evaluate: Any = None, **options: Any) -> History:
        def several(architecture: Architecture) -> Mapping[str, float]:
            return results(space, architecture)

        options = {"num_trials": self.num_trials, "objective": None, **options}
        return search_space(space, evaluate or several, strategy=self.make, **options)

    def _check_all(self, space: SearchSpace, history: History) -> None:
        asked = _asked(history)
        assert asked, f"it asked for nothing in {space}"
        for number, architecture in enumerate(asked):
            assert architecture == space.canonical(architecture), f"{architecture} is not canonical in {space}"
            assert architecture not in asked[:number], f"{architecture} was asked for twice in {space}"


def check_strategy(
    make: StrategyFactory, *, asks_everything: bool = True, takes_several_objectives: bool = True
) -> None:
    """Nothing, if a strategy passes all tests of `StrategySuite`.

    Args:
        make: the class of the strategy, or a function of (`Feasible`, seed).
        asks_everything, takes_several_objectives: see `StrategySuite`.

    Errors:
        AssertionError: what is wrong with it.

    Example:
        >>> from mutorch.search import RandomSearch
        >>> check_strategy(RandomSearch)
    """
    own = {
        "make": staticmethod(make),
        "asks_everything": asks_everything,
        "takes_several_objectives": takes_several_objectives,
    }
    suite = type("Suite", (StrategySuite,), own)()
    for name in dir(suite):
        if name.startswith("test_"):
            getattr(suite, name)()


def spaces() -> dict[str, SearchSpace]:
    """Small spaces of every kind, by name."""
    op = Decision("op", ("skip", "conv", "pool"))
    width = Decision("width", (8, 16, 24, 32))
    ratio = Decision("ratio", (0.25, 0.5, 1.0))
    size = Decision("size", ([64, 64], [64, 96], [96, 96]))
    norm = Decision("norm", (True, False))
    kernel = Decision("kernel", (3, 5, 7), when=(("op", "conv"),))
    groups = Decision("groups", (1, 2), when=(("kernel", 3), ("op", "pool")))
    return {
        "plain": SearchSpace([op, width, ratio, size, norm]),
        "nested": SearchSpace([groups, op, kernel, width]),
        "with rules": SearchSpace([op, width, ratio, kernel, norm], [Ref("width") * Ref("ratio") <= 16]),
        "tiny": SearchSpace([op, norm]),
    }


def costs_of(space: SearchSpace) -> CostTable:
    """A table in which later choices cost more."""
    counts = tuple(len(decision.choices) for decision in space)
    factors = Factors(counts, {(n,): (n + 2) * np.arange(count) for n, count in enumerate(counts)})
    return CostTable(space, {}, dict.fromkeys(("flops", "params", "bytes", "activation_bytes"), factors))


def goodness(space: SearchSpace, architecture: Architecture) -> float:
    """From 0 to 1: how many decisions are as in some architecture, neighbours that agree counting twice."""
    goal = space.sample(7)
    hits = [architecture[name] == goal[name] for name in space.names]
    pairs = [first and second for first, second in zip(hits, hits[1:], strict=False)]
    share = (sum(hits) + sum(pairs)) / (len(hits) + len(pairs))
    return float(share + 1e-3 * sum(space.encode(architecture)))


def results(space: SearchSpace, architecture: Architecture) -> dict[str, float]:
    """Three objectives that do not agree."""
    codes = np.array(space.encode(architecture))
    largest = np.array([max(len(decision.choices) - 1, 1) for decision in space])
    size = float((codes / largest).mean())
    return {"quality": goodness(space, architecture), "size": size, "balance": -float((codes / largest).std())}


def _asked(history: History) -> list[Architecture]:
    return [trial.architecture for trial in history]


def _global_states() -> str:
    return str((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))
