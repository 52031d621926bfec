"""The window of trials under way, and that results do not depend on when they come."""

from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.errors import ConfigError
from mutorch.search import Evolution, Feasible, InProcess, pools, search_space
from mutorch.space import Decision, SearchSpace

SPACE = SearchSpace([Decision(name, tuple(range(5))) for name in "abcdef"])


def score(architecture):
    return {"sum": sum(architecture.values()), "first": architecture["a"]}


class Shuffled(InProcess):
    """A pool that finishes what is under way in any order."""

    def __init__(self, evaluation, seed=0):
        super().__init__(evaluation)
        self.rng = Random(seed)
        self.most = 0

    def result(self):
        self.most = max(self.most, len(self._waiting))
        self._waiting.rotate(self.rng.randrange(8))
        return super().result()


def outcome(history):
    return [(t.index, t.architecture, t.values, dict(t.metrics)) for t in history]


@given(seed=st.integers(0, 99), ahead=st.integers(1, 12), strategy=st.sampled_from(["evolution", "random"]))
@settings(max_examples=20)
def test_a_history_does_not_depend_on_the_order_in_which_results_come(seed, ahead, strategy):
    options = {"num_trials": 40, "ahead": ahead, "strategy": strategy, "objective": ["sum", "-first"]}
    histories = [
        search_space(SPACE, score, workers=pool, **options)
        for pool in (0, lambda job: Shuffled(job, seed), lambda job: Shuffled(job, seed + 1))
    ]
    assert outcome(histories[0]) == outcome(histories[1]) == outcome(histories[2])


@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_never_more_than_the_window_is_under_way_and_the_strategy_knows_all_before_it(ahead):
    pools, known = [], []

    class Watched(Evolution):
        told = asked = 0

        def ask(self):
            known.append((self.asked, self.told))
            self.asked += 1
            return super().ask()

        def tell(self, trial):
            assert trial.index == self.told
            self.told += 1
            super().tell(trial)

    def pool(job):
        pools.append(Shuffled(job))
        return pools[-1]

    search_space(SPACE, score, strategy=Watched, workers=pool, ahead=ahead, num_trials=30)
    assert pools[0].most == ahead
    assert [told for _, told in known] == [max(0, asked + 1 - ahead) for asked, _ in known]


class Pairs:
    """Asks two by two: it has to be told both before it goes on."""

    def __init__(self, feasible: Feasible, seed: int) -> None:
        self.feasible, self.asked, self.told = feasible, 0, 0

    def ask(self):
        if self.asked - self.told == 2 or (self.asked % 2 == 0 and self.told < self.asked):
            return None
        self.asked += 1
        return self.feasible.draw(self.asked)

    def tell(self, trial):
        self.told += 1


@pytest.mark.parametrize("ahead", [1, 2, 8])
def test_a_strategy_may_wait_to_be_told(ahead):
    if ahead == 1:
        history = search_space(SPACE, score, strategy=Pairs, num_trials=10, ahead=ahead)
        assert len(history) == 10
        return
    history = search_space(SPACE, score, strategy=Pairs, num_trials=10, ahead=ahead, workers=Shuffled)
    assert (len(history), history.exhausted) == (10, False)


def test_new_trials_are_told_to_every_listener_in_order(tmp_path):
    log, first, second = tmp_path / "log.jsonl", [], []
    search_space(SPACE, score, num_trials=10, log=log, workers=Shuffled)
    history = search_space(
        SPACE,
        score,
        num_trials=15,
        log=log,
        on_trial=[lambda t, n: first.append((t, n)), lambda t, n: second.append(t)],
    )
    assert first == [(trial, 15) for trial in list(history)[10:]]
    assert second == list(history)[10:]


def test_an_error_in_an_evaluation_names_its_architecture():
    def evaluate(architecture):
        if architecture["a"] > 2:
            raise ZeroDivisionError("half of nothing")
        return 1.0

    with pytest.raises(ZeroDivisionError, match="half of nothing") as caught:
        search_space(SPACE, evaluate, num_trials=40)
    (note,) = caught.value.__notes__
    assert note.startswith("while evaluating trial ")
    assert "'a': 3" in note or "'a': 4" in note


def test_errors_may_be_recorded_and_rank_last(tmp_path):
    def evaluate(architecture):
        if architecture["a"] > 2:
            raise ZeroDivisionError("half of nothing")
        return -float(sum(architecture.values()))

    options = {"num_trials": 40, "on_error": "record", "log": tmp_path / "log.jsonl"}
    history = search_space(SPACE, evaluate, **options)
    failed = [trial for trial in history if trial.architecture["a"] > 2]
    assert {trial.error for trial in failed} == {"ZeroDivisionError: half of nothing"}
    assert all(trial.error is None for trial in history if trial not in failed)
    assert history.top(40)[-len(failed) :] == failed
    assert list(search_space(SPACE, evaluate, **options)) == list(history)


def test_what_breaks_constraints_ranks_behind_all_that_keeps_to_them_the_nearest_first():
    options = {"num_trials": 60, "constraints": {"first": (None, 1)}, "objective": "sum"}
    ranked = search_space(SPACE, score, **options).top(60)
    keeping = [trial.architecture["a"] <= 1 for trial in ranked]
    assert keeping == sorted(keeping, reverse=True)
    broken = [trial for trial in ranked if trial.architecture["a"] > 1]
    assert [trial.architecture["a"] for trial in broken] == sorted(trial.architecture["a"] for trial in broken)


def test_evolution_leaves_what_breaks_constraints():
    histories = [search_space(SPACE, score, num_trials=120, seed=s, constraints={"first": 1}) for s in range(4)]
    shares = [[trial.is_feasible for trial in part] for h in histories for part in (h.trials[:20], h.trials[-40:])]
    assert [sum(map(sum, half)) / sum(map(len, half)) > 0.8 for half in (shares[::2], shares[1::2])] == [False, True]


def test_evolution_with_two_objectives_comes_near_to_their_front():
    def two(architecture):
        values = list(architecture.values())
        return {"up": sum(values[:3]) - sum(values[3:]) / 4, "down": sum(values[:3]) ** 2 / 12 + sum(values[3:])}

    history = search_space(SPACE, two, objective=["up", "-down"], num_trials=400, seed=1)
    front = {trial.values for trial in history.pareto()}
    # The last three decisions only hurt: the front has one point for each sum of the first three.
    best = {(float(total), -total * total / 12) for total in range(13)}
    assert len(front & best) >= 12


def test_no_trial_begins_after_the_time_is_over_and_the_log_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(pools.time, "monotonic", count().__next__)
    options = {"log": tmp_path / "log.jsonl", "num_trials": 40}
    part = search_space(SPACE, score, max_seconds=25, **options)
    assert 10 < len(part) < 30
    assert not part.exhausted
    again = search_space(SPACE, score, max_seconds=1, **options)
    assert outcome(again) == outcome(part)
    assert outcome(search_space(SPACE, score, **options)) == outcome(search_space(SPACE, score, num_trials=40))


def test_a_search_that_nothing_good_came_of_says_so():
    with pytest.warns(UserWarning, match="all 3 trials gave no numbers"):
        search_space(SPACE, lambda a: float("nan"), num_trials=3)
    with pytest.warns(UserWarning, match=r"none of 3 trials keeps to the constraints {'first': \(-inf, -1.0\)}"):
        search_space(SPACE, score, num_trials=3, constraints={"first": -1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ahead": 0}, "ahead must be a whole number of at least 1, got 0"),
        ({"max_seconds": 0}, "max_seconds must be above 0, or left out for no limit, got 0"),
        ({"workers": -1}, "workers is a number of processes"),
        ({"workers": "two"}, "workers is a number of processes"),
        ({"on_error": "ignore"}, "no on_error 'ignore'"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        search_space(SPACE, score, **options)
