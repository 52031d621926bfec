"""Candidates in processes: the same history whatever their number, and whatever happens to them."""

import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
from pathlib import Path

import cloudpickle
import pytest
import torch
from torch import nn
from worker_cases import SPACE, Fork, is_alive, noisy, searched, searched_supernet, supernet, trials, wait_until

from mutorch.errors import ConfigError, RemoteError, TrialTimeoutError, WorkerError
from mutorch.mutators import Mutator
from mutorch.search import Evaluation, Outcome, Processes, search_space, worker_device, worker_index
from mutorch.search.evaluation import SubnetEvaluation
from mutorch.search.sending import load_evaluation, pack, save_evaluation, unpack
from mutorch.testing import check_pool


class Broken(LookupError):  # noqa: N818
    pass


class Unsendable(Exception):  # noqa: N818
    def __init__(self, text, code):
        super().__init__(text)
        self.lock = threading.Lock()


def die(how):
    os.kill(os.getpid(), how) if isinstance(how, signal.Signals) else os._exit(how)


@pytest.fixture(autouse=True)
def _one_thread_and_no_process_left():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    assert multiprocessing.active_children() == []


# The same, whatever the number


@pytest.mark.parametrize("strategy", ["evolution", "random"])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_history_does_not_depend_on_how_many_processes_evaluate(workers, strategy):
    assert searched(workers=workers, strategy=strategy) == searched(strategy=strategy)


@pytest.mark.parametrize("seed", range(5))
def test_a_history_depends_on_the_seed_alone(seed):
    alone = searched(seed=seed, num_trials=50)
    assert searched(seed=seed, num_trials=50, workers=3) == alone
    assert searched(seed=seed + 5, num_trials=50, workers=3) != alone


@pytest.mark.parametrize("workers", [1, 2])
def test_subnets_of_a_supernet_have_the_same_scores_bit_for_bit(workers):
    net = supernet()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert searched_supernet(net, workers=workers) == searched_supernet()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_results_that_come_in_another_order_make_the_same_history():
    done = multiprocessing.get_context("fork").Event()
    order = []

    def late(architecture):
        if architecture == first:
            assert done.wait(30)
        elif architecture != first:
            done.set()
        return noisy(architecture)

    first = searched(num_trials=1)[0][1]
    expected = searched()
    found = searched(late, workers=2, on_trial=lambda trial, _: order.append(trial.index))
    assert found == expected
    assert order == list(range(30))


def test_processes_pass_the_check_of_pools():
    check_pool(Processes(2))


def test_a_log_goes_on_with_another_number_of_processes(tmp_path):
    log, expected = tmp_path / "log.jsonl", searched(num_trials=24)
    for num_trials, workers in ((5, 2), (11, 0), (18, 3), (24, 1)):
        found = searched(num_trials=num_trials, workers=workers, log=log)
    assert found == expected
    assert searched(num_trials=24, workers=4, log=log, evaluate=lambda _: die(1)) == expected


def test_recorded_errors_are_the_same_in_processes():
    def partly(architecture):
        if architecture["block0"] == 2:
            raise Unsendable("no two", 2)
        if architecture["block1"] == 2:
            raise Broken("two")
        return noisy(architecture)

    expected = searched(partly, on_error="record")
    assert {error for *_, error in expected} == {None, "Unsendable: no two", "Broken: two"}
    assert searched(partly, on_error="record", workers=2) == expected


def test_a_process_knows_its_number_its_device_and_its_threads():
    def where(_):
        return {"index": worker_index(), "device": worker_device("meta").index or 0, "threads": torch.get_num_threads()}

    seen = [
        metrics
        for _, _, _, metrics, _ in searched(where, workers=Processes(2, devices=["cpu:0", "cpu:1"], start="fork"))
    ]
    assert {one["index"] for one in seen} <= {0, 1}
    assert all(one["device"] == one["index"] and one["threads"] == 1 for one in seen)
    assert searched(where, num_trials=1)[0][3]["index"] == 0


# Processes that die


@pytest.mark.parametrize(
    ("how", "text"),
    [(signal.SIGKILL, "signal SIGKILL"), (signal.SIGTERM, "signal SIGTERM"), (3, "exit code 3")],
    ids=str,
)
def test_a_process_that_dies_is_replaced_and_the_history_is_the_same(tmp_path, how, text):
    mark = tmp_path / "died"

    def dies_once(architecture):
        if architecture["block0"] == 3 and not mark.exists():
            mark.touch()
            die(how)
        return noisy(architecture)

    with pytest.warns(UserWarning, match=rf"worker \d ended with trial \d+ .*: {text}; it is tried again \(1 of 2\)"):
        found = searched(dies_once, workers=2)
    assert found == searched()
    assert mark.exists()


def dies_of_three(architecture):
    if architecture["block0"] == 3:
        die(signal.SIGKILL)
    return noisy(architecture)


def test_a_trial_that_always_kills_its_process_is_an_error_that_names_both():
    with (
        pytest.warns(UserWarning, match="1 of 1"),
        pytest.raises(
            WorkerError, match=r"trial \d+ \(.*'block0': 3.*\) ended its worker 2 times, .* signal SIGKILL; if mem"
        ),
    ):
        searched(dies_of_three, workers=Processes(2, retries=1))


def test_a_search_that_records_errors_goes_on_without_such_a_trial():
    found = searched(dies_of_three, workers=Processes(2, retries=0), on_error="record", num_trials=12)
    assert any(architecture["block0"] == 3 for _, architecture, *_ in found)
    for _, architecture, score, _, error in found:
        assert (error is not None) == (architecture["block0"] == 3) == (score == -math.inf)


def test_a_trial_that_takes_too_long_is_an_error_and_the_others_go_on():
    def slow(architecture):
        if architecture["block0"] == 3:
            time.sleep(100)
        return noisy(architecture)

    with pytest.raises(TrialTimeoutError, match=r"trial \d+ .*'block0': 3.* took longer than 0.2 seconds"):
        searched(slow, workers=Processes(2, timeout=0.2))
    found = searched(slow, workers=Processes(2, timeout=0.2), on_error="record", num_trials=6)
    assert [error is not None for *_, error in found] == [architecture["block0"] == 3 for _, architecture, *_ in found]


# Errors


def test_an_error_comes_back_as_what_it_was_with_its_trial_and_its_place():
    def breaks(architecture):
        raise Broken("no block", 7)

    with pytest.raises(Broken) as caught:
        searched(breaks, workers=2)
    assert caught.value.args == ("no block", 7)
    assert caught.value.__notes__[0].startswith("while evaluating trial 0, {'block0':")
    assert "in breaks" in caught.value.__notes__[1]


def test_an_error_that_cannot_be_sent_comes_back_with_its_name_text_and_place():
    def breaks(architecture):
        raise Unsendable("here", 7)

    with pytest.raises(RemoteError, match="here") as caught:
        searched(breaks, workers=1)
    assert type(caught.value).__name__ == "Unsendable"
    assert caught.value.__notes__[0].startswith("while evaluating trial 0")
    assert "in breaks" in caught.value.__notes__[1]


@pytest.mark.parametrize("result", [lambda: 1, "high", {"accuracy": [1]}], ids=["a function", "a text", "a list"])
def test_a_result_that_is_no_number_is_the_same_error_as_in_one_process(result):
    texts = []
    for workers in (0, 2):
        with pytest.raises(ConfigError, match="evaluate must return a number") as caught:
            searched(lambda _: result, workers=workers)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"count": 0}, "count of workers must be a whole number of at least 1, got 0"),
        ({"count": 2.0}, "count of workers must be .*got 2.0"),
        ({"count": 2, "threads": 0}, "threads of workers must be"),
        ({"count": 2, "retries": -1}, "retries of workers must be a whole number of at least 0"),
        ({"count": 2, "timeout": 0}, "timeout is seconds, more than 0"),
        ({"count": 2, "start": "frok"}, "no start 'frok' of processes here; did you mean 'fork'"),
        ({"count": 2, "start": "fork", "threads": 2}, "threads=2 hang in forked processes; take start='spawn'"),
        ({"count": 2, "devices": []}, r"devices is a list such as \[.cuda:0.*got \[\]"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        Processes(**options)


@pytest.mark.parametrize("workers", [-1, 1.5, True, "two"])
def test_a_number_of_workers_that_cannot_be_is_refused(workers):
    with pytest.raises(ConfigError, match="workers is a number of processes"):
        searched(workers=workers)


def test_more_workers_than_trials_under_way_are_warned_of():
    with pytest.warns(
        UserWarning, match="there are 3 workers, and no more than ahead=2 .*: 1 have nothing to do; give ahead=3"
    ):
        found = searched(workers=3, ahead=2, num_trials=6)
    assert found == searched(ahead=2, num_trials=6)


# How it ends


def note_and_wait(folder):
    def evaluate(architecture):
        if worker_index() == 1:
            (folder / f"{os.getpid()}.pid").touch()
            while True:
                time.sleep(0.01)
        return noisy(architecture)

    return evaluate


def search_for_ever(folder):
    history = search_space(
        SPACE, note_and_wait(folder), num_trials=50, workers=2, on_trial=lambda *_: (folder / "told").touch()
    )
    return trials(history), history.interrupted, len(multiprocessing.active_children())


def pid_of(folder):
    return int(next(folder.glob("*.pid")).stem)


def test_ctrl_c_ends_all_processes_quietly_and_returns_what_was_found(tmp_path):
    fork = Fork(tmp_path, "interrupted", search_for_ever, tmp_path)
    wait_until(lambda: (tmp_path / "told").exists() and [*tmp_path.glob("*.pid")], "a trial told, and one that hangs")
    os.killpg(fork.pid, signal.SIGINT)  # as a terminal does: to all processes
    how, (found, interrupted, left) = fork.join()
    assert (how, interrupted, left) == ("returned", True, 0)
    assert found
    assert found == searched(num_trials=50)[: len(found)]
    assert not is_alive(pid_of(tmp_path))
    assert fork.output.read_text() == ""


def test_processes_end_when_the_one_that_searches_is_killed(tmp_path):
    fork = Fork(tmp_path, "killed", search_for_ever, tmp_path)
    wait_until(lambda: [*tmp_path.glob("*.pid")], "a trial that hangs")
    assert is_alive(pid_of(tmp_path))
    os.kill(fork.pid, signal.SIGKILL)
    assert fork.join() is None
    wait_until(lambda: not is_alive(pid_of(tmp_path)), "the worker ends")


def test_an_error_of_a_listener_ends_all_processes(tmp_path):
    def listen(*_):
        raise Broken("listener")

    with pytest.raises(Broken, match="listener"):
        search_space(SPACE, noisy, num_trials=20, workers=2, on_trial=listen)


# What is sent to processes that are not forked


def test_a_spawned_process_takes_lambdas_settings_and_classes_with_it():
    class Local(Exception):  # noqa: N818
        pass

    def evaluate(architecture):
        if architecture["block0"] == 3 and architecture["block1"] == 3:
            raise Local("both")
        return (lambda scores: scores | {"bytes": torch.tensor(1.0).element_size()})(noisy(architecture))

    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(Local, match="both"):
            searched(evaluate)
        expected = searched(evaluate, on_error="record")
        found = []
        with pytest.raises(Local, match="both") as caught:
            search_space(
                SPACE,
                evaluate,
                num_trials=30,
                workers=Processes(1, start="spawn"),
                on_trial=lambda trial, _: found.append(trial),
            )
    finally:
        torch.set_default_dtype(torch.float32)
    assert "in evaluate" in caught.value.__notes__[1]
    assert trials(found) == expected[: len(found)]


def test_what_cannot_be_sent_is_named_with_the_way_out():
    held = {"locks": [threading.Lock()]}
    with pytest.raises(
        WorkerError,
        match=r"evaluate\.held\.locks\.0 cannot be sent .*lock.*; make it inside of evaluate, or take start='fork'",
    ):
        searched(lambda _: len(held), workers=Processes(1, start="spawn"))


def test_weights_of_an_evaluation_that_was_sent_stay_in_one_file(tmp_path):
    net, path = supernet(), tmp_path / "evaluation.pt"
    evaluation = Evaluation(SubnetEvaluation(net, Mutator(net), lambda model: model[0][0].weight.sum(), False), 0)
    save_evaluation(evaluation, path, cloudpickle, "")
    before = path.read_bytes()
    first, second = load_evaluation(path), load_evaluation(path)
    for weight in first.evaluate.net.parameters():
        nn.init.zeros_(weight)  # its own copy, now
    assert path.read_bytes() == before
    for mine, theirs in zip(second.evaluate.net.parameters(), net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert str(path) in Path("/proc/self/maps").read_text()


def test_errors_survive_the_way_back_whatever_their_constructors_want():
    outcome = unpack(pack(Outcome(3, None, 0.5, Unsendable("text", 1))))
    assert (outcome.index, outcome.seconds, str(outcome.error)) == (3, 0.5, "text")
    assert isinstance(outcome.error, RemoteError)
    same = unpack(pack(Outcome(3, None, 0.5, Broken("a", "b"))))
    assert type(same.error) is Broken
    assert pickle.loads(pickle.dumps(same.error)).args == ("a", "b")
