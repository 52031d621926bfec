"""What a pool does when workers end, hang or never come: by a crew that does what the test says."""

import time

import pytest

from mutorch.errors import StateError, TrialTimeoutError, WorkerError
from mutorch.search.crew import CrewPool, News
from mutorch.search.evaluation import Outcome

A = {"depth": 1}


class Acted:
    """A crew that tells the news of a list, one at a time, and notes what it was asked."""

    shortage = "buy more"

    def __init__(self, *news):
        self.news = list(news)
        self.asked = []

    def start(self, worker):
        self.asked.append(("start", worker))

    def send(self, worker, index, architecture):
        self.asked.append(("send", worker, index))

    def wait(self, seconds):
        if self.news:
            return [self.news.pop(0)]
        assert seconds is not None, "this would wait for ever"
        time.sleep(seconds)
        return []

    def kill(self, worker):
        self.asked.append(("kill", worker))

    def close(self):
        self.asked.append(("close",))


def done(worker, index):
    return News(worker, Outcome(index, 1.0, 0.0))


def test_no_worker_is_started_where_there_is_nothing_to_do():
    crew = Acted()
    with CrewPool(crew, 4):
        pass
    assert crew.asked == [("close",)]


def test_no_more_workers_are_started_than_trials_wait():
    crew = Acted(News(0), done(0, 0), done(0, 1))
    with CrewPool(crew, 4) as pool:
        pool.submit(0, A)
        assert pool.result().index == 0
        pool.submit(1, A)
        assert pool.result().index == 1
    assert [one for one in crew.asked if one[0] == "start"] == [("start", 0)]


def test_a_trial_waits_for_a_worker_that_is_ready():
    crew = Acted(News(1), done(1, 0), done(1, 1))
    with CrewPool(crew, 2) as pool:
        pool.submit(0, A)
        pool.submit(1, A)
        assert [pool.result().index for _ in range(2)] == [0, 1]
    assert crew.asked == [("start", 0), ("start", 1), ("send", 1, 0), ("send", 1, 1), ("close",)]


def test_a_trial_whose_worker_ended_goes_to_the_next_before_all_that_wait():
    crew = Acted(News(0), News(0, ended="signal SIGKILL"), News(0), done(0, 0), done(0, 1))
    with CrewPool(crew, 1) as pool:
        pool.submit(0, A)
        pool.submit(1, A)
        with pytest.warns(UserWarning, match=r"worker 0 ended with trial 0 .*SIGKILL; it is tried again \(1 of 2\)"):
            assert pool.result().index == 0
        assert pool.result().index == 1
    assert crew.asked == [("start", 0), ("send", 0, 0), ("start", 0), ("send", 0, 0), ("send", 0, 1), ("close",)]


def test_a_trial_that_ends_its_workers_again_and_again_is_an_error_of_that_trial():
    crew = Acted(News(0), News(0, ended="exit code 3"), News(0), News(0, ended="signal SIGSEGV"))
    with CrewPool(crew, 1, retries=1) as pool:
        pool.submit(7, A)
        with pytest.warns(UserWarning, match="1 of 1"):
            outcome = pool.result()
    assert outcome.index == 7
    assert isinstance(outcome.error, WorkerError)
    assert str(outcome.error).startswith(
        "trial 7 ({'depth': 1}) ended its worker 2 times, the last time by signal SIGSEGV; if"
    )


def test_a_worker_that_ends_without_a_trial_is_warned_of_and_replaced_only_if_needed():
    crew = Acted(News(0), News(1), done(0, 0), News(0, ended="signal SIGTERM"), done(1, 1))
    with CrewPool(crew, 2) as pool:
        pool.submit(0, A)
        pool.submit(1, A)
        assert pool.result().index == 0
        with pytest.warns(UserWarning, match="worker 0 ended without a trial: signal SIGTERM; another one is started"):
            assert pool.result().index == 1
        assert ("start", 0) not in crew.asked[1:]


def test_workers_that_cannot_be_started_are_an_error_that_says_what_to_do():
    crew = Acted(*[News(0, ended="no module named x")] * 3)
    with CrewPool(crew, 1) as pool:
        pool.submit(0, A)
        with (
            pytest.warns(UserWarning, match="without a trial: no module named x"),
            pytest.raises(WorkerError, match="no worker could be started, 3 times: no module named x; buy more"),
        ):
            pool.result()


def test_workers_that_never_come_are_an_error_after_a_time():
    with CrewPool(Acted(), 1, start_timeout=0.01) as pool:
        pool.submit(0, A)
        with pytest.raises(WorkerError, match="no worker was ready after 0 seconds; buy more"):
            pool.result()


def test_a_trial_that_takes_too_long_ends_its_worker_and_is_an_error():
    crew = Acted(News(0))
    with CrewPool(crew, 1, timeout=0.01) as pool:
        pool.submit(3, A)
        outcome = pool.result()
        assert isinstance(outcome.error, TrialTimeoutError)
        assert str(outcome.error) == "trial 3 ({'depth': 1}) took longer than 0.01 seconds, and its worker was ended"
        assert ("kill", 0) in crew.asked
        crew.news = [News(0), done(0, 4)]
        pool.submit(4, A)
        assert pool.result().index == 4


def test_a_result_that_nothing_was_submitted_for_is_an_error():
    with CrewPool(Acted(), 1) as pool, pytest.raises(StateError, match="no trial was submitted"):
        pool.result()
