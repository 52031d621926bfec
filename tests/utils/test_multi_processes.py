import multiprocessing
import os
import sys
from types import SimpleNamespace

import pytest

from mutorch.errors import ConfigError
from mutorch.utils import setup_multi_processes


@pytest.fixture
def process(monkeypatch):
    """What the function under test has set, with nothing really set."""
    state = SimpleNamespace(method=None, opencv=None)

    def set_start_method(method, force=False):
        assert force
        state.method = method

    monkeypatch.setattr(multiprocessing, "set_start_method", set_start_method)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: state.method)
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "")  # so that it is put back, whatever the test does
        monkeypatch.delenv(variable)
    return state


def _config(workers=1, **others):
    return {"data": {"workers_per_gpu": workers}, **others}


def test_the_start_method_is_fork_by_default(process):
    setup_multi_processes(_config())
    assert process.method == "fork"


def test_changing_a_start_method_warns(process):
    process.method = "fork"
    with pytest.warns(UserWarning, match="start method 'fork' becomes 'spawn'"):
        setup_multi_processes(_config(mp_start_method="spawn"))
    assert process.method == "spawn"


def test_an_unknown_start_method_is_refused(process):
    with pytest.raises(ConfigError, match="no mp_start_method 'forc' here; did you mean 'fork'"):
        setup_multi_processes(_config(mp_start_method="forc"))


def test_windows_keeps_its_start_method(process, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Windows")
    setup_multi_processes(_config())
    assert process.method is None


def test_opencv_threads_are_set_where_opencv_is_there(process, monkeypatch):
    threads = []
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(setNumThreads=threads.append))
    setup_multi_processes(_config())
    setup_multi_processes(_config(opencv_num_threads=4))
    assert threads == [0, 4]


def test_one_worker_changes_no_variable(process):
    setup_multi_processes(_config())
    assert not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & set(os.environ)


def test_several_workers_set_the_thread_variables_that_are_unset(process):
    os.environ["MKL_NUM_THREADS"] = "3"
    with pytest.warns(UserWarning, match="setting OMP_NUM_THREADS=1 for 2 workers"):
        setup_multi_processes(_config(workers=2))
    assert (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]) == ("1", "3")


@pytest.mark.parametrize("config", [{}, {"data": {}}, {"data": None}])
def test_a_config_without_workers_changes_nothing(process, config):
    with pytest.raises(AttributeError, match=r"no data\.workers_per_gpu"):
        setup_multi_processes(config)
    assert process.method is None
