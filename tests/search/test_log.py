import json
import math

import pytest

from mutorch.cost import Costs
from mutorch.errors import ResumeError
from mutorch.search import Trial
from mutorch.search.log import Log

RUN = {"space": "abc", "seed": 0, "budget": {"macs": [None, 1e9]}}
TRIALS = [
    Trial(0, {"op": "a", "size": [3, 3], "rate": 0.1}, 0.1 + 0.2, {"acc": 1 / 3}, Costs(7, 3, 0.1, 1e-7), 0.25),
    Trial(1, {"op": "b", "size": [5, 5], "rate": 0.2}, -math.inf, {"acc": math.nan, "loss": math.inf}, None, 1.0),
    Trial(2, {"op": 'quote"\n\u2028', "size": [1, 1], "rate": 0.3}, math.inf, {}, None, 1.0),
]


def write(path, trials=TRIALS):
    with Log(path, RUN) as log:
        for trial in trials:
            log.append(trial)


def same(one, other):
    return repr(one) == repr(other)  # not-a-number is not equal to itself


def test_trials_come_back_to_the_last_bit(tmp_path):
    write(tmp_path / "deep" / "run.jsonl")
    with Log(tmp_path / "deep" / "run.jsonl", RUN) as log:
        assert same(log.trials, TRIALS)


def test_every_line_is_strict_json(tmp_path):
    write(tmp_path / "run.jsonl")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    lines = (tmp_path / "run.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line, parse_constant=refuse).get("index") for line in lines[:-1]] == [None, 0, 1, 2]


def test_a_log_cut_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path):
    path = tmp_path / "run.jsonl"
    write(path)
    content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = max(0, content[:length].count(b"\n") - 1)
        with Log(path, RUN) as log:
            assert same(log.trials, TRIALS[:whole])
            for trial in TRIALS[whole:] if length % 10 == 0 else []:
                log.append(trial)
        assert content.startswith(path.read_bytes())
        assert length % 10 or path.read_bytes() == content


def test_no_path_keeps_nothing():
    with Log(None, RUN) as log:
        log.append(TRIALS[0])
        assert log.trials == TRIALS[:1]


def test_a_log_of_another_run_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "run.jsonl"
    write(path)
    before = path.read_bytes()
    with pytest.raises(
        ResumeError, match=r"another search \(seed: 0 there, 1 here; objective: None there, 'acc' here\)"
    ):
        Log(path, {**RUN, "seed": 1, "objective": "acc"})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 99, "run": {}}\n', "has format 99; this version reads format 1"),
        ("hello\n", "run.jsonl:1 is no line of a search log"),
        ("hello", "run.jsonl is no search log; give another path"),
        ("[]\n", "run.jsonl:1 is no line of a search log"),
        ('{"format": 1, "run": RUN}\n{"index": 0}\n', "run.jsonl:2 is no line of a search log"),
        ('{"format": 1, "run": RUN}\nnull\n', "run.jsonl:2 is no line of a search log"),
    ],
)
def test_files_that_are_no_logs_are_refused_with_the_line(tmp_path, content, message):
    path = tmp_path / "run.jsonl"
    path.write_text(content.replace("RUN", json.dumps(RUN)))
    before = path.read_bytes()
    with pytest.raises(ResumeError, match=message):
        Log(path, RUN)
    assert path.read_bytes() == before
