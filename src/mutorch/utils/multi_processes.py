"""Process start method and thread numbers, as older configs ask for them."""

import importlib
import multiprocessing
import os
import platform
import warnings
from collections.abc import Mapping
from typing import Any

from mutorch.errors import ConfigError, nearest


class MissingWorkersError(ConfigError, AttributeError):
    """A config without `data.workers_per_gpu`."""


def setup_multi_processes(cfg: Mapping[str, Any]) -> None:
    """Sets this process's start method and thread numbers from a v0-style config.

    Reads `mp_start_method` (default 'fork'; left alone on Windows), `opencv_num_threads`
    (default 0; only where OpenCV can be imported), and `data.workers_per_gpu`: with more than one
    worker, `OMP_NUM_THREADS` and `MKL_NUM_THREADS` become 1 unless they are set. Each change of
    something that was set, and each variable, is a warning.

    Example:
        >>> setup_multi_processes({"mp_start_method": "spawn"})
        Traceback (most recent call last):
        mutorch.utils.multi_processes.MissingWorkersError: the config has no data.workers_per_gpu...
    """
    try:
        workers = cfg["data"]["workers_per_gpu"]
    except (KeyError, TypeError):
        raise MissingWorkersError(
            "the config has no data.workers_per_gpu; "
            "write data=dict(workers_per_gpu=<worker processes for each device>)"
        ) from None
    if platform.system() != "Windows":
        _set_start_method(cfg.get("mp_start_method", "fork"))
    _set_opencv_threads(cfg.get("opencv_num_threads", 0))
    if workers > 1:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            if variable not in os.environ:
                warnings.warn(f"setting {variable}=1 for {workers} workers", stacklevel=2)
                os.environ[variable] = "1"


def _set_start_method(method: str) -> None:
    allowed = multiprocessing.get_all_start_methods()
    if method not in allowed:
        raise ConfigError(f"no mp_start_method {method!r} here; {nearest(method, allowed)}")
    current = multiprocessing.get_start_method(allow_none=True)
    if current not in (None, method):
        warnings.warn(f"start method '{current}' becomes '{method}'", stacklevel=3)
    multiprocessing.set_start_method(method, force=True)


def _set_opencv_threads(number: int) -> None:
    try:
        cv2: Any = importlib.import_module("cv2")
    except ImportError:
        return
    cv2.setNumThreads(number)
