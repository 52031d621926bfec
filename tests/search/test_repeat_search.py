import math

import pytest

from mutorch.errors import ConfigError
from mutorch.search import History, Trial, search_space
from mutorch.search.repeat import repeat
from mutorch.space import Decision, SearchSpace

SPACE = SearchSpace([Decision("depth", tuple(range(100)))])


def run(seed):
    return search_space(SPACE, lambda a: a["depth"], num_trials=4, seed=seed)


def test_each_seed_gives_its_own_search_and_all_of_them_mean_and_spread():
    found = repeat([3, 1], run)
    assert list(found.histories) == [3, 1]
    assert found.scores == {3: run(3).best.score, 1: run(1).best.score}
    low, high = sorted(found.scores.values())
    assert found.mean == (low + high) / 2
    assert found.spread == pytest.approx((high - low) / math.sqrt(2))
    assert found.to_dict()["best"][1] == {"seed": 1, "score": found.scores[1], "architecture": run(1).best.architecture}
    assert "over 2 seeds" in str(found)


def test_one_seed_has_no_spread():
    assert math.isnan(repeat([0], run).spread)
    assert str(repeat([0], run)).endswith(" over 1 seeds")


def test_seeds_that_are_missing_double_or_ignored_are_refused():
    with pytest.raises(ConfigError, match=r"one or more seeds, each once, got \[\]"):
        repeat([], run)
    with pytest.raises(ConfigError, match=r"got \[1, 1\]"):
        repeat([1, 1], run)
    with pytest.raises(ConfigError, match=r"run\(1\) returned a search with seed 0: pass its argument on"):
        repeat([0, 1], lambda seed: run(0))
    with pytest.raises(ConfigError, match=r"run\(0\) must return what `search` found, with trials, and returned float"):
        repeat([0], lambda seed: 0.5)
    with pytest.raises(ConfigError, match="returned an empty history"):
        repeat([0], lambda seed: History([]))


def test_a_history_that_does_not_say_its_seed_is_taken():
    assert repeat([7], lambda seed: History([Trial(0, {}, 1.0)])).mean == 1.0
