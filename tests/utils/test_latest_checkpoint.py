import pytest

from mutorch.utils import find_latest_checkpoint


def _touch(folder, *names):
    for name in names:
        (folder / name).touch()


def test_a_missing_folder_warns_and_gives_none(tmp_path):
    with pytest.warns(UserWarning, match="does not exist"):
        assert find_latest_checkpoint(tmp_path / "none") is None


def test_a_folder_without_checkpoints_warns_and_gives_none(tmp_path):
    _touch(tmp_path, "epoch_1.txt", ".epoch_3.pth")
    with pytest.warns(UserWarning, match=r"has no \*\.pth"):
        assert find_latest_checkpoint(str(tmp_path)) is None


def test_numbers_are_compared_as_numbers(tmp_path):
    _touch(tmp_path, "epoch_9.pth", "best_top1_epoch_12.pth", "epoch_99.ckpt")
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / "best_top1_epoch_12.pth")
    assert find_latest_checkpoint(tmp_path, suffix="ckpt") == str(tmp_path / "epoch_99.ckpt")


def test_latest_wins_over_numbers(tmp_path):
    _touch(tmp_path, "epoch_9.pth", "latest.pth")
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / "latest.pth")


def test_a_name_without_a_number_is_an_error(tmp_path):
    _touch(tmp_path, "epoch_9.pth", "epoch_last.pth")
    with pytest.raises(ValueError, match=r"epoch_last\.pth' has no number"):
        find_latest_checkpoint(tmp_path)
