import pytest

from mutorch.errors import ResumeError
from mutorch.search import search_space
from mutorch.search.read_history import read_history
from mutorch.space import Decision, SearchSpace

SPACE = SearchSpace([Decision("depth", tuple(range(50)))])


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "run.jsonl"
    search_space(SPACE, lambda a: {"depth": a["depth"]}, objective=["depth"], num_trials=6, log=path)
    return path


def test_a_log_gives_back_what_the_search_returned(log):
    again = search_space(SPACE, lambda a: {"depth": a["depth"]}, objective=["depth"], num_trials=6, log=log)
    history = read_history(log)
    assert list(history) == list(again)
    assert (history.objectives, history.run, history.interrupted) == (("depth",), again.run, False)


def test_a_log_that_is_still_written_is_read_as_far_as_it_goes(log):
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:4]))
    assert (len(read_history(log)), read_history(log).interrupted) == (3, True)
    log.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    assert (len(read_history(log)), read_history(log).interrupted) == (3, True)


def test_a_log_that_was_changed_in_the_middle_is_refused_with_what_to_do(log):
    log.write_bytes(log.read_bytes().replace(b'"index": 2', b'"index": 9'))
    with pytest.raises(ResumeError, match=r"run.jsonl:4: this line cannot be trusted.*`mutorch repair"):
        read_history(log)


def test_what_is_no_log_is_refused(tmp_path):
    with pytest.raises(ResumeError, match="cannot read the log"):
        read_history(tmp_path / "none.jsonl")
    (tmp_path / "other.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(ResumeError, match="is no search log"):
        read_history(tmp_path / "other.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(ResumeError, match="is no search log"):
        read_history(tmp_path / "empty.jsonl")
