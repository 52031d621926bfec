"""Every strategy that has a name passes the public suite, and what is wrong does not."""

import random

import pytest

from mutorch.errors import BudgetError, ResumeError
from mutorch.search import RandomSearch, RegularizedEvolution
from mutorch.search.strategies import STRATEGIES
from mutorch.testing import StrategySuite, check_strategy

TESTS = [name for name in dir(StrategySuite) if name.startswith("test_")]


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_passes(strategy, test):
    class Suite(StrategySuite):
        takes_several_objectives = strategy != "cmaes"

        def make(self, feasible, seed):
            return STRATEGIES[strategy](feasible, seed)

    getattr(Suite(), test)()


class Wrapped:
    """Random search with something wrong."""

    def __init__(self, feasible, seed):
        self.feasible, self.inner = feasible, RandomSearch(feasible, seed)
        self.asked = []

    def ask(self):
        self.asked.append(self.inner.ask())
        return self.asked[-1]

    def tell(self, trial):
        self.inner.tell(trial)


class Repeats(Wrapped):
    def ask(self):
        return self.asked[0] if len(self.asked) == 5 else super().ask()


class Forgets(Wrapped):
    def ask(self):
        return self.feasible.draw(random.getrandbits(32))


class Counts(Wrapped):
    """Has a state outside, as with a generator that goes on from search to search."""

    number = 0

    def ask(self):
        Counts.number += 1
        return self.feasible.draw(Counts.number)


class Fragile(Wrapped):
    def tell(self, trial):
        if trial.score == float("-inf"):
            raise ValueError("no number")


class Hasty(Wrapped):
    """Ends before everything was asked for."""

    def ask(self):
        return None if len(self.asked) > 5 else super().ask()


class Expensive(Wrapped):
    """Begins with the largest, whatever the budget."""

    def ask(self):
        if self.asked:
            return super().ask()
        self.asked.append(self.feasible.space.canonical(self.feasible.space.max))
        self.feasible.accept(self.asked[0])
        return self.asked[0]


@pytest.mark.parametrize(
    ("strategy", "error", "message"),
    [
        (Repeats, AssertionError, "was asked for twice"),
        (Forgets, (AssertionError, ResumeError), "depends on a global generator|searches of .* differ|now asks for"),
        (Counts, (AssertionError, ResumeError), "searches of .* differ|now asks for"),
        (Fragile, ValueError, "no number"),
        (Hasty, AssertionError, "it ended after 6 of"),
        (Expensive, BudgetError, "outside of"),
    ],
)
def test_what_is_wrong_with_a_strategy_is_found(strategy, error, message):
    with pytest.raises(error, match=message):
        check_strategy(strategy)


def test_a_strategy_that_ends_by_itself_passes_where_that_is_said():
    check_strategy(Hasty, asks_everything=False)


def test_settings_of_a_strategy_are_tested_by_a_function_that_makes_it():
    check_strategy(lambda feasible, seed: RegularizedEvolution(feasible, seed, population=4, tournament=2, starts=2))
