import pytest
import torch

from mutorch.errors import ResumeError
from mutorch.training.checkpoint import load_checkpoint, save_checkpoint

RUN = {"seed": 0, "steps": 10, "space": "abc"}


def test_a_state_comes_back_and_leaves_no_partial_file(tmp_path):
    path = tmp_path / "deep" / "state.pt"
    assert load_checkpoint(path, run=RUN) is None
    save_checkpoint(path, {"step": 3, "weights": torch.arange(3.0)}, run=RUN)
    state = load_checkpoint(path, run=RUN)
    assert (state["step"], state["weights"].tolist()) == (3, [0.0, 1.0, 2.0])
    assert [file.name for file in path.parent.iterdir()] == ["state.pt"]


def test_a_failed_write_keeps_the_older_checkpoint(tmp_path):
    path = tmp_path / "state.pt"
    save_checkpoint(path, {"step": 3}, run=RUN)
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"step": 4, "bad": lambda: None}, run=RUN)
    assert load_checkpoint(path, run=RUN) == {"step": 3}


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path):
    save_checkpoint(tmp_path / "state.pt", {"step": 3}, run=RUN)
    with pytest.raises(
        ResumeError, match=r"another run \(seed: 0 there, 1 here; extra: None there, 'x' here\); delete it"
    ):
        load_checkpoint(tmp_path / "state.pt", run={**RUN, "seed": 1, "extra": "x"})


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut"])
def test_files_that_are_no_checkpoint_are_refused(tmp_path, content):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(ResumeError, match="state.pt is no checkpoint of mutorch"):
        load_checkpoint(tmp_path / "state.pt", run=RUN)


def test_other_formats_and_contents_are_refused(tmp_path):
    torch.save({"format": 2, "run": RUN, "state": {}}, tmp_path / "newer.pt")
    with pytest.raises(ResumeError, match="has format 2; this version reads format 1"):
        load_checkpoint(tmp_path / "newer.pt", run=RUN)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(ResumeError, match="weights.pt is no checkpoint of mutorch: KeyError"):
        load_checkpoint(tmp_path / "weights.pt", run=RUN)
