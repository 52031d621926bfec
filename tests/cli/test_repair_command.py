import pytest
from typer.testing import CliRunner

from mutorch.cli.app import app
from mutorch.errors import ResumeError
from mutorch.search import Trial
from mutorch.search.log import Log


def repair(*words):
    return CliRunner().invoke(app, ["repair", *map(str, words)])


@pytest.fixture
def damaged(tmp_path):
    """The log of four trials, of which the second was edited afterwards."""
    path = tmp_path / "run.jsonl"
    with Log(path, {"seed": 0}) as log:
        for index in range(4):
            log.append(Trial(index, {"op": "conv"}, 0.5))
    path.write_bytes(
        path.read_bytes().replace(
            b'"index": 1, "architecture": {"op": "conv"', b'"index": 1, "architecture": {"op": "skip"'
        )
    )
    return path


def indices(path):
    with Log(path, {"seed": 0}) as log:
        return [trial.index for trial in log.trials]


def test_a_damaged_log_keeps_what_comes_before_and_says_what_was_done(damaged):
    before = damaged.read_bytes()
    said = repair(damaged)
    assert said.exit_code == 0
    assert said.stdout.split("\n") == [
        f"{damaged}: 1 trial kept; as it was: {damaged}.bak",
        f"{damaged}.rejected: 3 lines taken out",
        "  line 3: its checksum does not fit what it says: it was changed after it was written",
        "  line 4: it comes after line 3",
        "  line 5: it comes after line 3",
        "",
    ]
    assert indices(damaged) == [0]
    assert damaged.with_name("run.jsonl.bak").read_bytes() == before
    assert damaged.with_name("run.jsonl.rejected").read_bytes() == b"".join(before.splitlines(keepends=True)[2:5])


def test_what_follows_can_be_kept_but_never_the_line_that_was_changed(damaged):
    said = repair(damaged, "--keep-following")
    assert f"{damaged}.rejected: 1 line taken out\n  line 3:" in said.stdout
    assert indices(damaged) == [0, 2, 3]


def test_a_second_repair_finds_nothing_wrong_and_changes_nothing(damaged):
    repair(damaged)
    before = {path.name: path.read_bytes() for path in damaged.parent.iterdir()}
    assert repair(damaged).stdout == f"{damaged}: nothing is wrong with it, 1 trial\n"
    assert {path.name: path.read_bytes() for path in damaged.parent.iterdir()} == before


def test_an_earlier_backup_is_not_overwritten(damaged):
    damaged.with_name("run.jsonl.bak").write_text("mine")
    assert f"as it was: {damaged}.bak2" in repair(damaged).stdout
    assert damaged.with_name("run.jsonl.bak").read_text() == "mine"


def test_a_log_that_is_not_there_or_has_no_first_line_is_an_error(tmp_path):
    with pytest.raises(ResumeError, match="there is no log .*run.jsonl"):
        raise repair(tmp_path / "run.jsonl").exception
    (tmp_path / "run.jsonl").write_text("hello\n")
    with pytest.raises(
        ResumeError, match="run.jsonl:1: this line cannot be trusted, and says what the search was: it is no"
    ):
        raise repair(tmp_path / "run.jsonl").exception
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]
