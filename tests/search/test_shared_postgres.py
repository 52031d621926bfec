"""A search that several processes share in a real PostgreSQL, one of them killed in the midst of it."""

import json
import os
import subprocess
import sys
import warnings
from collections import Counter

import pytest

from mutorch.search import search_space
from mutorch.space import Decision, SearchSpace

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("pgserver")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here, to start them quickly")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of folders that a server without a desktop does not have
        import pgserver

        server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


SCRIPT = """
import json, os, random, signal, sys, time
from pathlib import Path

from mutorch.search import search_space
from mutorch.space import Decision, SearchSpace

log, folder = sys.argv[1], Path(sys.argv[2])
space = SearchSpace([Decision(f"d{n}", tuple("abcd")) for n in range(4)])
evaluations = folder / "evaluations"

def evaluate(architecture):
    name = "".join(architecture.values())
    descriptor = os.open(evaluations, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{os.getpid()} {name}\\n".encode())
    os.close(descriptor)
    time.sleep(0.1)
    return {"accuracy": sum(map(ord, name)) % 41 / 41, "loss": 1.0}

def take_part(who):
    history = search_space(space, evaluate, num_trials=40, seed=1, log=log, objective=["accuracy", "-loss"])
    trials = [(t.index, t.architecture, t.values, t.metrics, t.seconds) for t in history]
    (folder / f"history{who}.json").write_text(json.dumps([trials, history.exhausted]))

children = []
for who in range(3):
    children.append(os.fork())
    if not children[-1]:
        take_part(who)
        os._exit(0)

def calls():
    return [line.split() for line in evaluations.read_text().splitlines()] if evaluations.exists() else []

victim = children[1]
while len(calls()) < 12 or not any(int(pid) == victim for pid, _ in calls()):
    time.sleep(0.01)
time.sleep(random.Random(0).uniform(0, 0.1))
os.kill(victim, signal.SIGKILL)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
print(json.dumps({"codes": codes, "victim": victim, "calls": calls()}))
"""


def test_three_processes_share_a_search_one_is_killed_and_the_others_end_with_the_same_history(database, tmp_path):
    command = [sys.executable, "-c", SCRIPT, f"{database}#shared", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["codes"] == [0, -9, 0], done.stderr
    first, second = (json.loads((tmp_path / f"history{who}.json").read_text()) for who in (0, 2))
    assert first == second
    trials, exhausted = first
    assert (len(trials), exhausted) == (40, False)

    # Everything once, but for what the killed one had under way, which others did again: once.
    names = ["".join(architecture.values()) for _, architecture, *_ in trials]
    assert len(set(names)) == 40
    killed = [name for pid, name in report["calls"] if int(pid) == report["victim"]]
    times = Counter(name for _, name in report["calls"])
    assert set(times) == set(names)
    again = [name for name, count in times.items() if count > 1]
    assert again in ([], killed[-1:])
    assert all(times[name] == 2 for name in again)
    assert {pid for pid, _ in report["calls"]} > {str(report["victim"])}

    # And whoever comes later has the same.
    space = SearchSpace([Decision(f"d{n}", tuple("abcd")) for n in range(4)])
    later = search_space(
        space,
        lambda architecture: pytest.fail("everything is evaluated"),
        num_trials=40,
        seed=1,
        log=f"{database}#shared",
        objective=["accuracy", "-loss"],
    )
    assert [[t.index, t.architecture, list(t.values), dict(t.metrics), t.seconds] for t in later] == trials


def test_connections_that_break_are_made_again(database):
    def evaluate(architecture):
        with psycopg.connect(database, autocommit=True) as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.execute(f"{others} AND backend_type = 'client backend'")
        return float(architecture["width"])

    space = SearchSpace([Decision("width", (1, 2, 3))])
    history = search_space(space, evaluate, num_trials=3, log=f"{database}#broken")
    assert sorted(trial.score for trial in history) == [1.0, 2.0, 3.0]
    assert [trial.index for trial in history] == [0, 1, 2]
