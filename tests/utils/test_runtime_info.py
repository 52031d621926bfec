import pytest

from mutorch.errors import ConfigError
from mutorch.utils import RuntimeInfo, RuntimeInfoError


def test_a_run_answers_every_question():
    with RuntimeInfo.running(epoch=1, max_epochs=3, iter=5, max_iters=10, cfg={"work_dir": "w"}):
        assert RuntimeInfo.epoch() == 1
        assert RuntimeInfo.max_epochs() == 3
        assert RuntimeInfo.iter() == 5
        assert RuntimeInfo.max_iters() == 10
        assert RuntimeInfo.iter_pre_epoch() == 4
        assert RuntimeInfo.iter_by_epoch() == 1
        assert RuntimeInfo.work_dir() == "w"
        assert RuntimeInfo.info()["iter"] == 5


def test_update_changes_the_run_and_info_is_a_copy():
    with RuntimeInfo.running(iter=0):
        RuntimeInfo.info()["iter"] = 9
        assert RuntimeInfo.iter() == 0
        RuntimeInfo.update(iter=1)
        assert RuntimeInfo.iter() == 1


def test_the_inner_run_hides_the_outer_one_until_it_ends():
    with RuntimeInfo.running(iter=1):
        with RuntimeInfo.running(iter=7):
            assert RuntimeInfo.iter() == 7
        assert RuntimeInfo.iter() == 1


def test_a_run_ends_with_an_error_too():
    with pytest.raises(KeyError, match="no 'epoch'"), RuntimeInfo.running(iter=7):
        RuntimeInfo.epoch()
    with pytest.raises(RuntimeInfoError, match="no run is going on"):
        RuntimeInfo.iter()


@pytest.mark.parametrize("error", [KeyError, RuntimeError])
def test_asking_outside_of_a_run_is_an_error(error):
    with pytest.raises(error, match="no run is going on here"):
        RuntimeInfo.epoch()
    with pytest.raises(error, match="no run is going on here"):
        RuntimeInfo.update(epoch=1)


def test_an_absent_key_is_a_key_error_with_near_names():
    with (
        RuntimeInfo.running(max_iters=1),
        pytest.raises(KeyError, match="no 'max_iter'; did you mean 'max_iters'"),
    ):
        RuntimeInfo.get_info("max_iter")


def test_config_text_is_parsed():
    text = "work_dir = 'runs/a'\nmodel = dict(type='Net', stages=[dict(n=-1)], flag=True)\n"
    with RuntimeInfo.running(cfg=text):
        assert RuntimeInfo.config() == {
            "work_dir": "runs/a",
            "model": {"type": "Net", "stages": [{"n": -1}], "flag": True},
        }
        assert RuntimeInfo.work_dir() == "runs/a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = open('x')", r"line 2: .*open\('x'\).* is not a plain value"),
        ("a = dict([(1, 2)])", "is not a plain value"),
        ("import os", "line 1: only 'name = value' lines"),
        ("a = (1", "line 1: "),
        (3, "must be a mapping or text, got int"),
    ],
)
def test_config_text_that_is_not_plain_data_is_refused(text, message):
    with RuntimeInfo.running(cfg=text), pytest.raises(ConfigError, match=message):
        RuntimeInfo.config()


def test_a_config_without_work_dir_is_an_error():
    with (
        RuntimeInfo.running(cfg={"workdir": "a"}),
        pytest.raises(RuntimeInfoError, match="no 'work_dir'; did you mean 'workdir'"),
    ):
        RuntimeInfo.work_dir()
