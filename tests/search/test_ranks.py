"""Candidates evaluated by the ranks of torchrun: one search on all of them, and none waits for ever."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from docs_pages import blocks_of
from torch import distributed, nn
from worker_cases import SPACE, Fork, noisy, searched, searched_supernet, supernet, trials, wait_until

from mutorch.errors import StateError
from mutorch.mutators import Mutator
from mutorch.search import Evaluation, InProcess, Processes, Ranks, search, search_space, worker_index
from mutorch.subnet import LatencyRunner
from mutorch.testing import check_pool

PAGE = Path(__file__).parents[2] / "docs" / "many-workers.md"


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def on_ranks(tmp_path):
    """Runs a function of the rank on several ranks; what each returned, or the name and text of its error."""

    def run(function, count=2, meanwhile=None):
        def rank_of(rank):
            store = f"file://{tmp_path}/store"
            distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
            distributed.barrier()  # no rank ends while another one still connects
            result = function(rank)
            distributed.destroy_process_group()
            return result

        forks = [Fork(tmp_path, f"rank {rank}", functools.partial(rank_of, rank)) for rank in range(count)]
        if meanwhile is not None:
            meanwhile(forks)
        return [fork.join() for fork in forks]

    return run


def all_returned(value, count=2):
    return [("returned", value)] * count


@pytest.mark.parametrize("count", [2, 3])
def test_all_ranks_have_the_history_of_one_process(on_ranks, count):
    assert on_ranks(lambda _: searched(), count) == all_returned(searched(), count)


def test_subnets_have_the_same_scores_on_all_ranks_though_their_batch_norms_saw_different_batches(on_ranks):
    def train_and_search(rank):
        net = supernet()
        net[0]._candidates["conv3"][1].running_mean += rank
        return searched_supernet(net)

    assert on_ranks(train_and_search) == all_returned(searched_supernet())


def test_what_rank_0_measures_holds_for_all(on_ranks):
    def search_by_latency(rank):
        def board(model, inputs):  # a device of each rank's own
            return 1 + rank + sum(parameter.numel() for parameter in model.parameters()) / 100

        net = supernet()
        history = search(
            net,
            Mutator(net),
            lambda model: sum(parameter.numel() for parameter in model.parameters()),
            runner=LatencyRunner(board),
            example_inputs=torch.zeros(1, 4, 6, 6),
            budget={"latency_ms": "70%"},
            calibrate=False,
            num_trials=8,
        )
        measured = {index: one.measured.median_ms for index, one in history.measured.items()}
        return trials(history), [trial.costs for trial in history], measured

    first, second = on_ranks(search_by_latency)
    assert first == second == ("returned", search_by_latency(0))


def test_an_error_of_a_measurement_on_rank_0_is_raised_on_all(on_ranks):
    def broken(rank):
        net = supernet()
        search(
            net,
            Mutator(net),
            float,
            runner=LatencyRunner(lambda model, inputs: None),
            calibrate=False,
            example_inputs=torch.zeros(1, 4, 6, 6),
        )

    first, second = on_ranks(broken)
    assert first == second
    assert first[0] == "MeasureError"


def test_each_rank_evaluates_its_share(on_ranks, tmp_path):
    def count(rank):
        seen = []
        searched(lambda architecture: seen.append(1) or noisy(architecture), num_trials=11)
        return len(seen), worker_index()

    # 8 trials wait at first, then as many as were told: rounds of 3, 3, 3 and 2
    assert on_ranks(count, 3) == [("returned", (4, 0)), ("returned", (4, 0)), ("returned", (3, 0))]


def test_ranks_pass_the_check_of_pools(on_ranks):
    assert on_ranks(lambda _: check_pool(Ranks)) == all_returned(None)


def test_rank_0_alone_writes_the_log_and_has_listeners_and_all_go_on_from_it(on_ranks, tmp_path):
    log, expected = tmp_path / "log.jsonl", searched(num_trials=24)

    def search_and_listen(rank):
        told = []
        return searched(num_trials=15, log=log, on_trial=lambda trial, _: told.append(trial.index)), told

    searched(num_trials=5, log=log)
    found = on_ranks(search_and_listen, 3)
    assert found == [("returned", (expected[:15], told)) for told in (list(range(5, 15)), [], [])]
    assert searched(num_trials=24, log=log) == expected


def test_ranks_end_together_when_the_time_of_rank_0_is_over(on_ranks):
    def search_for_a_while(rank):
        return searched(num_trials=10_000 if rank else 10_000, ahead=2, max_seconds=0.2 if rank == 0 else 0.05)

    first, second = on_ranks(search_for_a_while)
    assert first == second
    how, found = first
    assert how == "returned"
    assert 0 < len(found) < 81


def test_a_search_of_one_rank_alone_takes_the_pool_of_one_process(on_ranks):
    def search_on_rank_1(rank):
        return [searched(workers=InProcess), searched(workers=Processes(2))] if rank == 1 else None

    assert on_ranks(search_on_rank_1) == [("returned", None), ("returned", [searched(), searched()])]


# Errors: on one rank is on all, and none waits for ever


def breaks_on_rank_1(architecture):
    if worker_index() == 1:
        raise LookupError("no block")
    return 1.0


def test_an_error_of_one_evaluation_is_raised_on_all_ranks(on_ranks):
    assert on_ranks(lambda _: searched(breaks_on_rank_1)) == [("LookupError", "no block")] * 2


def test_an_error_that_is_recorded_is_the_same_trial_on_all_ranks(on_ranks):
    def breaks_at_three(architecture):
        if architecture["block0"] == 3:
            raise LookupError("no three")
        return noisy(architecture)

    expected = searched(breaks_at_three, on_error="record")
    assert on_ranks(lambda _: searched(breaks_at_three, on_error="record")) == all_returned(expected)


def test_an_error_of_a_listener_on_rank_0_ends_the_others_too(on_ranks):
    def listen(trial, _):
        if trial.index == 3:
            raise LookupError("listener")

    first, second = on_ranks(lambda _: searched(on_trial=listen))
    assert first == ("LookupError", "listener")
    assert second[0] == "WorkerError"
    assert second[1].startswith("rank 0 ended its search with LookupError: listener")


def test_an_error_of_a_listener_after_the_last_trial_does_too(on_ranks):
    def listen(trial, _):
        if trial.index == 9:
            raise LookupError("listener")

    first, second = on_ranks(lambda _: searched(on_trial=listen, num_trials=10))
    assert (first, second) == (
        ("LookupError", "listener"),
        ("WorkerError", "rank 0 ended its search with LookupError: listener"),
    )


def test_a_log_that_cannot_be_read_is_the_same_error_on_all_ranks(on_ranks, tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("no log\n")
    first, second = on_ranks(lambda _: searched(log=log))
    assert first == second
    assert first[0] == "ResumeError"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (lambda rank: {"seed": rank}, "rank 1 searches something else than rank 0 (seed: 0 there, 1 here)"),
        (
            lambda rank: {"num_trials": 10 + rank},
            "rank 1 searches something else than rank 0 (num_trials: 10 there, 11 here)",
        ),
    ],
    ids=["seed", "num_trials"],
)
def test_ranks_that_search_different_things_are_refused(on_ranks, options, text):
    for how, told in on_ranks(lambda rank: searched(**options(rank))):
        assert (how, told[: len(text)]) == ("ConfigError", text)


@pytest.mark.parametrize(("what", "options"), [("weight", {}), ("running_mean", {"calibrate": False})])
def test_ranks_with_different_supernets_are_refused(on_ranks, what, options):
    def search_another(rank):
        net = supernet()
        with torch.no_grad():
            getattr(net[1]._candidates["conv3"][what == "running_mean"], what).add_(rank)
        return searched_supernet(net, **options)

    for how, told in on_ranks(search_another):
        assert how == "ConfigError"
        assert told.startswith("rank 1 has other weights or statistics than rank 0, first in '1._candidates.conv3")


def test_layers_that_compute_with_all_ranks_are_refused_with_the_way_out(on_ranks):
    for how, told in on_ranks(lambda _: searched_supernet(nn.SyncBatchNorm.convert_sync_batchnorm(supernet()))):
        assert how == "ConfigError"
        assert told.startswith("'0._candidates.conv1.1' is a SyncBatchNorm, which computes with all ranks")


def test_a_rank_that_is_killed_ends_the_others_with_an_error(on_ranks):
    def killed_on_rank_1(architecture):
        if worker_index() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    first, second = on_ranks(lambda _: searched(killed_on_rank_1))
    assert second is None
    assert first[0] == "WorkerError"
    assert first[1].startswith("rank 0 lost the others: one of them ended")


def test_a_rank_that_never_comes_is_an_error_with_the_way_out(on_ranks, tmp_path):
    def search_on_rank_0(rank):
        if rank == 0:
            try:
                return searched(workers=functools.partial(Ranks, arrival=0.2))
            finally:
                (tmp_path / "gone").touch()
        return wait_until((tmp_path / "gone").exists, "rank 0 gives up")

    (how, text), _ = on_ranks(search_on_rank_0)
    assert how == "WorkerError"
    assert text.startswith(
        "not all of 2 ranks began this search within 0.2 seconds: call it on every rank, or give workers=InP"
    )


def test_a_rank_that_takes_too_long_is_an_error(on_ranks, tmp_path):
    def slow_on_rank_1(architecture):
        if worker_index() == 1:
            wait_until((tmp_path / "gone").exists, "rank 0 gives up")
        return 1.0

    def search_all(rank):
        try:
            return searched(slow_on_rank_1, workers=functools.partial(Ranks, timeout=0.5))
        finally:
            (tmp_path / "gone").touch()

    (how, text), (other, _) = on_ranks(search_all)
    assert how == other == "WorkerError"
    assert "or took 0.5 seconds longer" in text


@pytest.mark.parametrize("interrupted", [(0,), (1,), (0, 1)], ids=str)
def test_ctrl_c_on_any_rank_returns_the_same_history_on_all(on_ranks, tmp_path, interrupted):
    expected = searched(num_trials=50)

    def hangs_at_9(architecture):
        if architecture in (expected[9][1], expected[8][1]):
            (tmp_path / f"at {worker_index()}").touch()
            while worker_index() in interrupted:
                time.sleep(0.01)
        return noisy(architecture)

    def search_interrupted(rank):
        history = search_space(SPACE, hangs_at_9, num_trials=50)
        return trials(history), history.interrupted

    def interrupt(forks):
        wait_until(lambda: len([*tmp_path.glob("at *")]) == 2, "both ranks are at trials 8 and 9")
        for rank in interrupted:
            os.kill(forks[rank].pid, signal.SIGINT)

    told = on_ranks(search_interrupted, meanwhile=interrupt)
    whole = 8 if 0 in interrupted else 9
    assert told == all_returned((expected[:whole], True))


def test_processes_on_ranks_are_refused_with_the_way_out(on_ranks):
    for how, text in on_ranks(lambda _: searched(workers=2)):
        assert how == "ConfigError"
        assert text.startswith(
            "workers=2 under torchrun, where each rank evaluates its share already: leave workers at 0"
        )


def test_ranks_without_torchrun_are_refused():
    with pytest.raises(StateError, match="Ranks needs torch.distributed: start with torchrun"):
        Ranks(Evaluation(noisy, 0))


def test_the_program_of_the_page_trains_and_searches_under_torchrun(tmp_path):
    (block,) = [block for block in blocks_of(PAGE) if block.info.startswith("file=train_and_search.py")]
    (tmp_path / "train_and_search.py").write_text(block.code)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "train_and_search.py",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    best = [line for line in done.stdout.splitlines() if "best" in line]
    assert len(best) == 2
    assert len({line.partition(": ")[2] for line in best}) == 1
    assert len((tmp_path / "search.jsonl").read_text().splitlines()) == 18  # what was searched, 16 trials, the end
