"""Searches that are killed, at any moment, and go on."""

import os
import random
import re
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, random, signal, sys, time, warnings
from pathlib import Path

from mutorch.cost import CostTable
from mutorch.search import search_space
from mutorch.space import Decision, SearchSpace

log, workers, kills, seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
evaluations = log.with_name("evaluations")
space = SearchSpace([Decision(f"d{n}", tuple("abcdef")) for n in range(6)])

def evaluate(architecture):
    descriptor = os.open(evaluations, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, ("".join(architecture.values()) + "\\n").encode())
    os.close(descriptor)
    time.sleep(0.001)
    return {"score": sum(map(ord, architecture.values())) * 7 % 97}

def run(log=None, workers=0):
    history = search_space(space, evaluate, num_trials=TRIALS, seed=1, log=log, workers=workers)
    return [(trial.index, trial.architecture, trial.score, trial.metrics) for trial in history]

def logged():
    lines = log.read_bytes().split(b"\\n")[1:-1] if log.exists() else []
    return ["".join(json.loads(line)["architecture"].values()) for line in lines if b'"closed"' not in line[:20]]

def evaluated():
    return evaluations.read_text().split() if evaluations.exists() else []

def finish():
    before, calls = logged(), len(evaluated())
    warnings.simplefilter("ignore")
    found = run(log, workers)
    assert not set(before) & set(evaluated()[calls:]), "what was in the log was evaluated again"
    assert found == whole, "the history differs from that of an uninterrupted search"

TRIALS, rng, killed, survived = 400, random.Random(seed), 0, 0
whole = run()
evaluations.unlink()
while killed < kills:
    before, calls = logged(), len(evaluated())
    child = os.fork()
    if not child:
        warnings.simplefilter("ignore")
        run(log, workers)
        os._exit(0)
    time.sleep(rng.uniform(0.0, LONGEST))
    os.kill(child, signal.SIGKILL)
    was_killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    killed += was_killed
    survived = max(survived, len(logged()) * was_killed)
    assert logged()[:len(before)] == before, "a record was lost"
    assert not set(before) & set(evaluated()[calls:]), "what was in the log was evaluated again"
    if not was_killed:  # a fast machine: once more from the beginning
        finish()
        log.unlink()
        evaluations.unlink()
finish()
print(killed, survived, "the same history")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here, to start many of them quickly")
@pytest.mark.parametrize(("workers", "kills", "longest"), [(0, 50, 0.06), (2, 12, 0.2)])
def test_a_search_killed_at_any_moment_ends_with_the_history_of_an_uninterrupted_one(tmp_path, workers, kills, longest):
    script = SCRIPT.replace("LONGEST", str(longest))
    seed = random.Random(workers).randrange(1000)
    command = [sys.executable, "-c", script, str(tmp_path / "run.jsonl"), str(workers), str(kills), str(seed)]
    # One thread: a fork has no others.
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    said = re.fullmatch(rf"{kills} (\d+) the same history\n", done.stdout)
    assert said is not None
    assert int(said[1]) > 20  # trials that outlived a kill
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluations", "run.jsonl"]
