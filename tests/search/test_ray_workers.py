"""Candidates on a Ray cluster: two nodes on this machine, one of which is killed, and a Ray that the search starts itself."""

import os
import signal
import time
import warnings

import pytest
import torch
from worker_cases import SPACE, noisy, searched, searched_supernet, trials, wait_until

from mutorch.errors import ConfigError, WorkerError
from mutorch.search import RayWorkers, search_space, worker_index
from mutorch.testing import check_pool

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

# Ray leaves pipes and log files of processes that it started to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def nodes():
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        yield cluster
        cluster.shutdown()


@pytest.fixture
def cluster(nodes):
    """The cluster, with this process connected to it."""
    ray.init(address=nodes.address, logging_level="ERROR", log_to_driver=False)
    yield nodes
    ray.shutdown()


def test_ray_passes_the_check_of_pools_with_the_ray_that_is_there(cluster):
    check_pool(RayWorkers(1, num_cpus=0.5), num_trials=8, seeds=(0,))
    assert ray.is_initialized()


def test_subnets_have_the_same_scores_on_ray(cluster):
    assert searched_supernet(workers=RayWorkers(1), num_trials=6) == searched_supernet(num_trials=6)


def test_a_trial_that_kills_its_actor_is_an_error_that_names_both(cluster):
    def kills(architecture):
        if architecture["block0"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return noisy(architecture)

    with pytest.raises(WorkerError, match=r"'block0': 3.*\) ended its worker 1 times, the last time by ActorDiedError"):
        searched(kills, workers=RayWorkers(1, retries=0))


def test_a_node_that_is_killed_changes_nothing_in_the_history(cluster, tmp_path):
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    doomed = node.node_id
    assert doomed in {one["NodeID"] for one in ray.nodes()}

    def evaluate(architecture):
        """Goes on when both workers were there; the one on the node that is killed waits for that."""
        (tmp_path / f"worker {worker_index()}").touch()
        wait_until(lambda: len([*tmp_path.glob("worker *")]) == 2, "both workers are there")
        while (tmp_path / "killed").exists() and ray.get_runtime_context().get_node_id() == doomed:
            time.sleep(0.01)
        return noisy(architecture)

    def kill_node(trial, _):
        if trial.index == 3:
            (tmp_path / "killed").touch()
            cluster.remove_node(node, allow_graceful=False)

    with pytest.warns(UserWarning, match=r"worker \d ended with.*(Actor|Node)\w*Error"):
        history = search_space(SPACE, evaluate, num_trials=30, workers=RayWorkers(2), on_trial=kill_node)
    assert trials(history) == searched()


def test_a_cluster_without_a_place_is_an_error_that_says_what_it_has(cluster):
    with pytest.raises(
        WorkerError,
        match=r"no worker was ready after 0 seconds; each worker wants \{'CPU': 1, 'tpu': 4\}, .* 'tpu': 0\}",
    ):
        searched(workers=RayWorkers(1, resources={"tpu": 4}, start_timeout=0.3))


def test_a_ray_that_the_search_started_ends_with_it():
    assert not ray.is_initialized()
    found = searched(workers=RayWorkers(2, threads=1), num_trials=12)
    assert found == searched(num_trials=12)
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"count": 0}, "count of workers must be"),
        ({"count": 1, "num_gpus": -1}, "num_gpus of a worker must be a number of at least 0, got -1"),
        ({"count": 1, "resources": {"tpu": "one"}}, "tpu of a worker must be .*got 'one'"),
        ({"count": 1, "timeout": -1}, "timeout is seconds"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_refused(options, text):
    with pytest.raises(ConfigError, match=text):
        RayWorkers(**options)
