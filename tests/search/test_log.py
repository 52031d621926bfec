import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mutorch.cost import Costs
from mutorch.errors import LogLockedError, ResumeError
from mutorch.search import Trial
from mutorch.search.log import Log
from mutorch.search.repair import repair

RUN = {"space": "abc", "seed": 0, "budget": {"macs": [None, 1e9]}}
TRIALS = [
    Trial(1, {"op": "b", "size": [5, 5], "rate": 0.2}, -math.inf, {"acc": math.nan, "loss": math.inf}, None, 1.0),
    Trial(0, {"op": "a", "size": [3, 3], "rate": 0.1}, 0.1 + 0.2, {"acc": 1 / 3}, Costs(7, 3, 0.1, 1e-7), 0.25),
    Trial(
        2, {"op": 'quote"\n\u2028', "size": [1, 1], "rate": 0.3}, math.inf, {}, None, 1.0, (math.inf, 2.0), 0.5, "no"
    ),
]


def write(path, trials=TRIALS):
    with Log(path, RUN) as log:
        for trial in trials:
            log.append(trial)


def crash(path, trials=TRIALS, run=RUN):
    """Leave a log as a killed process does: with its lock file, and without the line that closes it."""
    log = Log(path, run)
    for trial in trials:
        log.append(trial)
    log._release(is_closed=False)


def read(path, run=RUN):
    with Log(path, run) as log:
        return log.trials


def same(one, other):
    return repr(one) == repr(other)  # not-a-number is not equal to itself


def lock_of(path):
    return path.with_name(f"{path.name}.lock")


# ---- what is written -------------------------------------------------------------------------------------------------


def test_trials_come_back_to_the_last_bit_in_the_order_of_their_results(tmp_path):
    write(tmp_path / "deep" / "run.jsonl")
    assert same(read(tmp_path / "deep" / "run.jsonl"), TRIALS)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run.jsonl"]


def test_every_line_is_strict_json(tmp_path):
    write(tmp_path / "run.jsonl")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    *lines, rest = (tmp_path / "run.jsonl").read_text(encoding="ascii").split("\n")
    entries = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [entry.get("index") for entry in entries] == [None, 1, 0, 2, None]
    assert (entries[0]["run"], entries[-1]["closed"], rest) == (RUN, 4, "")


def test_a_log_does_not_tell_how_often_it_was_continued(tmp_path):
    write(tmp_path / "once.jsonl")
    for trial in TRIALS:
        write(tmp_path / "often.jsonl", [trial])
    assert (tmp_path / "once.jsonl").read_bytes() == (tmp_path / "often.jsonl").read_bytes()


def test_reading_a_log_does_not_write_to_it(tmp_path):
    path = tmp_path / "run.jsonl"
    write(path)
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert same(read(path), TRIALS)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_no_path_keeps_nothing():
    with Log(None, RUN) as log:
        log.append(TRIALS[0])
        assert log.trials == TRIALS[:1]


def test_a_trial_is_on_the_disk_before_it_counts_unless_it_took_no_time(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), sync(descriptor)))
    with Log(tmp_path / "run.jsonl", RUN) as log:
        synced.clear()
        for index in range(10):
            log.append(Trial(index, {}, 0.0, seconds=0.001))
        assert not synced
        log.append(Trial(10, {}, 0.0, seconds=0.049))
        log.append(Trial(11, {}, 0.0, seconds=0.06))
        assert len(synced) == 2
        log.append(Trial(12, {}, 0.0))
        assert len(synced) == 2
    assert len(synced) == 3


def test_a_full_disk_is_an_error_and_the_log_goes_on_once_there_is_space(tmp_path, monkeypatch):
    path = tmp_path / "run.jsonl"
    with Log(path, RUN) as log:
        log.append(TRIALS[0])
        log.append(TRIALS[1])
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", almost_full(os.write))
            with pytest.raises(OSError, match="No space left") as caught:
                log.append(TRIALS[2])
    assert "free some space and run the search again" in caught.value.__notes__[0]
    assert same(read(path), TRIALS[:2])
    write(path, TRIALS[2:])
    assert same(read(path), TRIALS)


def almost_full(write):
    calls = []

    def almost(descriptor, content):
        calls.append(content)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content[:20])

    return almost


@pytest.mark.parametrize("written", ["all", "half", "nothing"])
def test_ctrl_c_in_the_midst_of_a_write_loses_nothing(tmp_path, monkeypatch, written):
    path = tmp_path / "run.jsonl"
    real = os.write

    def interrupted(descriptor, content):
        if b'"index": 0' not in content:
            return real(descriptor, content)
        real(descriptor, {"all": content, "half": content[:50], "nothing": b""}[written])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if written == "half" else "error")
        assert same(read(path), TRIALS[: 2 if written == "all" else 1])
    write(path, TRIALS[2 if written == "all" else 1 :])
    assert same(read(path), TRIALS)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_log_of_another_run_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "run.jsonl"
    write(path)
    before = path.read_bytes()
    with pytest.raises(
        ResumeError, match=r"another search \(seed: 0 there, 1 here; objective: None there, 'acc' here\)"
    ):
        Log(path, {**RUN, "seed": 1, "objective": "acc"})
    assert path.read_bytes() == before
    assert not lock_of(path).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "run.jsonl is empty: what was in it is lost; nothing in it can be trusted without its first line"),
        ("hello\n", "run.jsonl is no search log; give another path"),
        ("hello", "run.jsonl is no search log; give another path"),
        ("[]\n", "run.jsonl is no search log; give another path"),
        ('{"format": 1, "run": RUN}\n', "has format 1; this version reads format 2"),
        ('{"format": 2, "run": RUN}\n', "run.jsonl:1: this line cannot be trusted: it does not end with a checksum"),
        ('{"format": 2, "ru', "run.jsonl:1: this line cannot be trusted: it is half a line"),
    ],
)
def test_files_that_are_no_logs_are_refused(tmp_path, content, message):
    path = tmp_path / "run.jsonl"
    path.write_text(content.replace("RUN", json.dumps(RUN)))
    before = path.read_bytes()
    with pytest.raises(ResumeError, match=message):
        Log(path, RUN)
    assert path.read_bytes() == before
    assert not lock_of(path).exists()


def edited(lines):
    return [*lines[:2], lines[2].replace(b'"score": 0.3', b'"score": 0.4'), *lines[3:]]


DAMAGES = {
    "edited": (edited, r"run.jsonl:3: .* its checksum does not fit what it says: it was changed", 1),
    "removed": (lambda lines: [*lines[:2], *lines[3:]], r":3: .* one was changed, removed, repeated or moved", 1),
    "repeated": (lambda lines: [*lines[:3], *lines[2:]], r":4: .* one was changed, removed, repeated or moved", 2),
    "moved": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], r":2: .* removed, repeated or moved", 0),
    "cut at a line": (lambda lines: lines[:3], r":4: the line that closes the log is missing: it was cut", 2),
    "cut before its end": (lambda lines: lines[:4], r":5: the line that closes the log is missing: it was cut", 3),
    "half a line": (lambda lines: [*lines[:3], lines[3][:30]], r":4: .* it is half a line", 2),
    "no JSON": (lambda lines: [*lines[:3], b"oops\n", *lines[3:]], r":4: .* it is no JSON \(Expecting value", 2),
    "a text": (lambda lines: [*lines[:3], b'"oops"\n', *lines[3:]], r":4: .* it is no JSON object but str", 2),
    "ends of Windows": (
        lambda lines: [line[:-1] + b"\r\n" for line in lines],
        r":1: .* its line end was changed",
        None,
    ),
    "written behind its end": (lambda lines: [*lines, lines[2]], r":6: .* after the line that closes the log", 3),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_log_is_an_error_with_the_line_what_is_wrong_and_what_repairs_it(tmp_path, damage):
    change, message, kept = DAMAGES[damage]
    path = tmp_path / "run.jsonl"
    write(path)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    before = path.read_bytes()
    remedy = "restore a copy" if kept is None else rf"`mutorch repair .*run.jsonl` keeps the {kept} trials before it"
    with pytest.raises(ResumeError, match=f"{message}.*{remedy}"):
        Log(path, RUN)
    assert path.read_bytes() == before
    if kept is not None:
        done = repair(path)
        assert done.kept == kept
        assert same(read(path), TRIALS[:kept])
        assert done.backup.read_bytes() == before


# ---- what a killed process leaves ------------------------------------------------------------------------------------


def test_a_log_of_a_killed_process_goes_on(tmp_path):
    path = tmp_path / "run.jsonl"
    write(tmp_path / "whole.jsonl")
    crash(path, TRIALS[:2])
    assert lock_of(path).exists()
    write(path, TRIALS[2:])
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not lock_of(path).exists()


def test_half_a_line_of_a_killed_process_is_dropped_with_a_warning(tmp_path):
    path = tmp_path / "run.jsonl"
    crash(path, TRIALS[:2])
    with path.open("ab") as file:
        file.write(b'{"index": 2, "archi')
    with pytest.warns(
        UserWarning, match=r"run.jsonl:4: the search .* was killed in the midst of this line; it is dropped"
    ):
        assert same(read(path), TRIALS[:2])


@pytest.mark.parametrize("lines", [0, 1, 2, 3])
def test_a_killed_log_that_was_cut_afterwards_is_an_error(tmp_path, lines):
    path = tmp_path / "run.jsonl"
    crash(path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]))
    for _ in range(2):  # the first error does not hide the second
        with pytest.raises(
            ResumeError, match=f":{lines + 1}: the log was cut: 4 lines were .*, and {lines} are" if lines else "empty"
        ):
            Log(path, RUN)
    if lines:
        assert repair(path).kept == lines - 1
        assert same(read(path), TRIALS[: lines - 1])


def test_a_killed_log_without_its_lock_file_is_an_error_until_it_is_repaired(tmp_path):
    path = tmp_path / "run.jsonl"
    crash(path)
    lock_of(path).unlink()
    with pytest.raises(
        ResumeError, match=r"closes the log is missing: .* killed and the log copied without run.jsonl.lock"
    ):
        Log(path, RUN)
    assert (repair(path).kept, repair(path).backup) == (3, None)
    assert same(read(path), TRIALS)


def test_a_killed_log_that_is_gone_begins_anew_with_a_warning(tmp_path):
    path = tmp_path / "run.jsonl"
    crash(path)
    path.unlink()
    with pytest.warns(UserWarning, match="is gone, and its lock file says that it had 4 lines; the search begins anew"):
        assert read(path) == []


def test_a_process_killed_before_it_wrote_anything_is_no_obstacle(tmp_path):
    path = tmp_path / "run.jsonl"
    for left in (b"", b'{"pid": 1, "host": "there", "lines": null}\n', b'{"pid": 1, "host": "there", "lines": 0}\n'):
        lock_of(path).write_bytes(left)
        assert read(path) == []
        path.unlink()


# ---- one writer ------------------------------------------------------------------------------------------------------


def test_a_second_writer_in_this_process_is_refused_at_once(tmp_path):
    with Log(tmp_path / "run.jsonl", RUN) as log:
        with pytest.raises(
            LogLockedError, match=f"run.jsonl is being written by process {os.getpid()} on .*; wait for it"
        ):
            Log(tmp_path / "run.jsonl", RUN)
        log.append(TRIALS[0])
    assert same(read(tmp_path / "run.jsonl"), TRIALS[:1])


HOLD = """
import sys, time
from mutorch.search.log import Log
log = Log(sys.argv[1], {"seed": 0})
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_writer_in_another_process_is_refused_until_the_first_is_dead(tmp_path):
    path = tmp_path / "run.jsonl"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "open\n"
        for attempt in (lambda: Log(path, {"seed": 0}), lambda: repair(path)):
            with pytest.raises(LogLockedError, match=f"is being written by process {holder.pid} on "):
                attempt()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert read(path, {"seed": 0}) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_fork_that_outlives_a_killed_writer_does_not_hold_its_log(tmp_path):
    path = tmp_path / "run.jsonl"
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with Log(path, RUN) as log:
            log.append(TRIALS[0])
            grandchild = os.fork()
            if not grandchild:
                log.close()  # as when a worker leaves the same block: nothing is written
                time.sleep(30)
                os._exit(0)
            os.write(writer, str(grandchild).encode())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        assert same(read(path), TRIALS[:1])
    finally:
        os.kill(int(os.read(reader, 20)), signal.SIGKILL)
        os.close(reader)
        os.close(writer)


def test_a_log_that_something_else_changes_meanwhile_takes_nothing_more(tmp_path):
    path = tmp_path / "run.jsonl"
    with Log(path, RUN) as log:
        log.append(TRIALS[0])
        with path.open("ab") as file:
            file.write(b"hello\n")
        with pytest.raises(ResumeError, match="was changed by something else while this search writes it"):
            log.append(TRIALS[1])


# ---- any damage ------------------------------------------------------------------------------------------------------

positions = st.integers(0, 10_000)
damages = st.one_of(
    st.tuples(st.just("cut"), positions, positions),
    st.tuples(st.just("flip"), positions, st.integers(1, 255)),
    st.tuples(st.just("insert"), positions, st.binary(min_size=1, max_size=5)),
    st.tuples(st.just("remove"), positions, st.integers(1, 300)),
    st.tuples(st.just("repeat"), positions, st.integers(1, 300)),
    st.tuples(st.just("repeat line"), positions, positions),
    st.tuples(st.just("remove line"), positions, st.just(0)),
    st.tuples(st.just("move line"), positions, positions),
)


def damaged(content, damage):
    kind, at, what = damage
    lines = content.splitlines(keepends=True)
    if kind.endswith("line"):
        line = lines[at % len(lines)]
        if kind != "repeat line":
            del lines[at % len(lines)]
        if kind != "remove line":
            lines.insert(what % (len(lines) + 1), line)
        return b"".join(lines)
    at %= len(content) + (kind == "insert")
    if kind == "cut":
        return content[:at]
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ what]) + content[at + 1 :]
    if kind == "insert":
        return content[:at] + what + content[at:]
    part = content[at : at + what]
    return content[:at] + (part * 2 if kind == "repeat" else b"") + content[at + what :]


def go_on(path):
    """Open a log, write the trials that it does not have, and close it; what is in it then, by index."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Log(path, RUN) as log:
            for trial in TRIALS:
                if trial.index not in [known.index for known in log.trials]:
                    log.append(trial)
    return sorted(read(path), key=lambda trial: trial.index)


def refusal(function, *args, **options):
    try:
        function(*args, **options)
    except ResumeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("end", [write, crash])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=damages, keep_following=st.booleans())
@example(damage=("cut", 0, 0), keep_following=False)
def test_any_damage_gives_the_same_history_or_a_clear_error_before_and_after_a_repair(
    tmp_path_factory, end, damage, keep_following
):
    path = tmp_path_factory.mktemp("log") / "run.jsonl"
    end(path)
    path.write_bytes(damaged(path.read_bytes(), damage))
    whole = sorted(TRIALS, key=lambda trial: trial.index)
    refused = refusal(go_on, path)
    if refused is not None:
        assert "run.jsonl" in refused
        refused = refusal(repair, path, keep_following=keep_following)
    if refused is not None:
        assert "run.jsonl:1: this line cannot be trusted" in refused
    else:
        assert same(go_on(path), whole)
