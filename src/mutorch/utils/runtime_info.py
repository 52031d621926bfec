"""What the running training loop tells about itself."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mutorch.errors import ConfigError, MutorchError, nearest

from .literal_assignments import parse_assignments

_current: ContextVar[dict[str, Any] | None] = ContextVar("mutorch_runtime_info", default=None)


class RuntimeInfoError(MutorchError, KeyError, RuntimeError):
    """A question about the run that no run, or not this one, can answer."""


class RuntimeInfo:
    """Epoch, iteration and config of the run that is going on, readable anywhere below it.

    A training loop opens the run with `running` and reports with `update`. Runs nest: the inner
    one is read until it ends. A new thread starts outside of any run.

    Example:
        >>> with RuntimeInfo.running(epoch=0, max_epochs=2, iter=0, max_iters=9):
        ...     RuntimeInfo.update(epoch=1, iter=6)
        ...     RuntimeInfo.epoch(), RuntimeInfo.iter_pre_epoch(), RuntimeInfo.iter_by_epoch()
        (1, 5, 1)
    """

    @classmethod
    @contextmanager
    def running(cls, **values: Any) -> Iterator[None]:
        """A run that lasts as long as the `with` block and starts with these values."""
        token = _current.set(dict(values))
        try:
            yield
        finally:
            _current.reset(token)

    @classmethod
    def update(cls, **values: Any) -> None:
        """Sets values of the current run; for the loop that opened it."""
        _values().update(values)

    @classmethod
    def info(cls) -> dict[str, Any]:
        """All values of the current run, as a new dict."""
        return dict(_values())

    @classmethod
    def get_info(cls, key: str) -> Any:
        values = _values()
        if key not in values:
            raise RuntimeInfoError(f"the run has no {key!r}; {nearest(key, values)}")
        return values[key]

    @classmethod
    def epoch(cls) -> int:
        return int(cls.get_info("epoch"))

    @classmethod
    def max_epochs(cls) -> int:
        return int(cls.get_info("max_epochs"))

    @classmethod
    def iter(cls) -> int:
        return int(cls.get_info("iter"))

    @classmethod
    def max_iters(cls) -> int:
        return int(cls.get_info("max_iters"))

    @classmethod
    def iter_pre_epoch(cls) -> int:
        """Iterations in each epoch, rounded up (the name is that of the older library)."""
        return -(-cls.max_iters() // cls.max_epochs())

    @classmethod
    def iter_by_epoch(cls) -> int:
        """The iteration within the current epoch."""
        return cls.iter() % cls.iter_pre_epoch()

    @classmethod
    def config(cls) -> dict[str, Any]:
        """The run's config, from 'cfg': a mapping, or text of assignments, which is not run."""
        stored = cls.get_info("cfg")
        if isinstance(stored, str):
            return parse_assignments(stored)
        if isinstance(stored, Mapping):
            return dict(stored)
        raise ConfigError(f"the run's 'cfg' must be a mapping or text, got {type(stored).__name__}")

    @classmethod
    def work_dir(cls) -> str:
        config = cls.config()
        if "work_dir" not in config:
            raise RuntimeInfoError(f"the run's config has no 'work_dir'; {nearest('work_dir', config)}")
        return str(config["work_dir"])


def _values() -> dict[str, Any]:
    values = _current.get()
    if values is None:
        raise RuntimeInfoError("no run is going on here; a training loop starts one with RuntimeInfo.running(...)")
    return values
