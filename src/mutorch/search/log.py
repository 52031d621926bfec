"""The log of a search: one line of JSON a trial, on the disk before it counts.

What a log may look like when it is opened, and what is done then. `run.jsonl.lock` is there from before a log is first written to
until after the line that closes it, and says how many lines are on the disk for sure, `n`:

| end of the log | no lock file: it was closed | a lock file of an ended process: it was killed |
|---|---|---|
| closed | goes on; the closing line makes room at the first new trial | the same |
| whole lines, not closed | cut at a line: error | `n` or more: goes on. Fewer: cut, error |
| a line that is half or wrong | cut or edited: error | behind line `n`: never acknowledged, dropped with a warning. Else: error |
| no file | begins | begins, with a warning if `n > 0` |

A lock file of a process that lives is an error: see `FileLock`. An error changes nothing and names `mutorch repair`. Ctrl-C, errors in
an evaluation and the end of a search close the log. Every line has a checksum of itself and all before it (`lines.py`).
"""

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mutorch.errors import ResumeError
from mutorch.utils import differences

from .history import Trial
from .lines import FORMAT, Scan, entry_of, scan, seal
from .lock import FileLock, sync_folder

SYNC_SECONDS = 0.05
"""Trials are waited for on the disk when together they took longer than this: what a power loss costs at most. A kill costs nothing."""
_BEGINNING = b'{"format"'


class Log:
    """A file of trials that one search writes.

    Args:
        path: the file, made if missing; `None` for a log that is not kept.
        run: what makes the search what it is; only an equal run continues a file.

    Errors:
        LogLockedError: another process writes it, or this one already does.
        ResumeError: a file of another run (says in what they differ), one that is damaged, or that is no log.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "run.jsonl"
        >>> with Log(path, {"seed": 0}) as log:
        ...     log.append(Trial(0, {"op": "conv"}, 0.5))
        >>> with Log(path, {"seed": 0}) as log:
        ...     print(log.trials[0].architecture)
        {'op': 'conv'}
        >>> Log(path, {"seed": 1})
        Traceback (most recent call last):
        mutorch.errors.ResumeError: ...run.jsonl belongs to another search (seed: 0 there, 1 here); give another log to start anew
    """

    def __init__(self, path: str | os.PathLike[str] | None, run: Mapping[str, Any]) -> None:
        self.trials: list[Trial] = []
        self._lock: FileLock | None = None
        if path is None:
            return
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path)
        self._descriptor = -1
        self._unsynced = 0.0
        try:
            self._open(json.loads(json.dumps(run)))
        except BaseException:
            self._release(is_closed=self._noted is None and self._descriptor < 0)
            raise

    def append(self, trial: Trial) -> None:
        """Write a trial down; it is on the disk when this returns, or soon where it took no time: see `SYNC_SECONDS`.

        Errors:
            OSError: it could not be written, as on a full disk; the log is then as it was before.
        """
        if self._lock is not None:
            self._unsynced += trial.seconds
            self._write(entry_of(trial))
        self.trials.append(trial)

    def close(self) -> None:
        """Write the line that closes the log, and let others write."""
        if self._lock is None or not self._lock.is_held:  # no file; closed; or in a fork of the process that writes
            return
        done = self._is_closed
        try:
            # Ctrl-C may have come in the midst of a write: then what is there is sorted out when the log is opened again.
            if not done and os.fstat(self._descriptor).st_size == self._size:
                self._unsynced = SYNC_SECONDS
                self._write({"closed": self._lines}, counts=False)
                done = True
        except OSError as error:
            warnings.warn(f"{self.path} could not be closed ({error}); no trial is lost", stacklevel=3)
        finally:
            self._release(is_closed=done)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _noted(self) -> int | None:
        """How many lines the lock file of a process that was killed says are on the disk."""
        return None if self._lock is None or self._lock.left is None else self._lock.left.get("lines")

    def _open(self, run: dict[str, Any]) -> None:
        exists = self.path.exists()
        content = self.path.read_bytes() if exists else b""
        found = scan(content)
        self._check_whole(found, content, exists)
        if found.header is not None:
            self._check_run(found.header, run)
        self.trials = found.trials
        self._lines, self._size, self._chain = found.lines, found.size, found.chain
        self._is_closed = found.is_closed
        if found.wrong is not None:
            warnings.warn(
                f"{self.path}:{found.number}: the search that wrote this log was killed in the midst of this line; it is "
                "dropped, and its trial is evaluated again",
                stacklevel=5,
            )
        if not self._is_closed:
            self._begin()
        if found.header is None:
            self._unsynced = SYNC_SECONDS
            self._write({"format": FORMAT, "run": run})
            sync_folder(self.path.parent)

    def _check_whole(self, found: Scan, content: bytes, exists: bool) -> None:
        noted = self._noted
        if not exists:
            if noted:
                warnings.warn(
                    f"{self.path} is gone, and its lock file says that it had {noted} lines; the search begins anew",
                    stacklevel=6,
                )
            return
        if found.lines >= (0 if noted is None else noted) and (noted is not None or found.is_closed):
            return
        if content[: len(_BEGINNING)] != _BEGINNING[: len(content)]:
            raise ResumeError(f"{self.path} is no search log; give another path")
        _check_format(self.path, content)
        raise ResumeError(f"{damage(self.path, found, content, noted)}; {_remedy(self.path, found)}")

    def _check_run(self, header: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        if header.get("format") != FORMAT:
            raise ResumeError(_other_format(self.path, header))
        different = differences(header["run"], run)
        if different:
            raise ResumeError(f"{self.path} belongs to another search ({different}); give another log to start anew")

    def _begin(self) -> None:
        """From here on the log is open: a line that closed it, or a half one, goes."""
        assert self._lock is not None
        self._lock.note(self._lines, sync=True)
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self.path, flags, 0o666)
        os.ftruncate(self._descriptor, self._size)
        self._is_closed = False

    def _write(self, content: Mapping[str, Any], counts: bool = True) -> None:
        assert self._lock is not None
        if self._is_closed:
            self._begin()
        if os.fstat(self._descriptor).st_size != self._size:
            raise ResumeError(
                f"{self.path} was changed by something else while this search writes it; nothing more is written"
            )
        line, chain = seal(content, self._chain)
        try:
            written = os.write(self._descriptor, line)
            while written < len(line):  # the disk is almost full
                written += os.write(self._descriptor, line[written:])
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            error.add_note(
                f"while writing {self.path}, which is as it was before; free some space and run the search again"
            )
            raise
        self._chain = chain
        self._size += len(line)
        self._lines += counts
        if self._unsynced >= SYNC_SECONDS:
            os.fsync(self._descriptor)
            self._unsynced = 0.0
            self._lock.note(self._lines)

    def _release(self, *, is_closed: bool) -> None:
        assert self._lock is not None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._lock.release(remove=is_closed)


def damage(path: Path, found: Scan, content: bytes, noted: int | None) -> str:
    """What is wrong with a log that cannot go on, and where."""
    if not content:
        return f"{path} is empty: what was in it is lost"
    if found.wrong is not None:
        return f"{path}:{found.number}: this line cannot be trusted: {found.wrong}"
    if noted is not None and noted > found.lines:
        return f"{path}:{found.number}: the log was cut: {noted} lines were written, and {found.lines} are there"
    return (
        f"{path}:{found.number}: the line that closes the log is missing: it was cut, or its search was killed and the log "
        f"copied without {path.name}.lock"
    )


def _remedy(path: Path, found: Scan) -> str:
    if found.header is None:
        return "nothing in it can be trusted without its first line: restore a copy, or give another log to start anew"
    return f"`mutorch repair {path}` keeps the {found.lines - 1} trials before it"


def _check_format(path: Path, content: bytes) -> None:
    try:
        header = json.loads(content.partition(b"\n")[0])
    except ValueError:
        return
    if isinstance(header, dict) and header.get("format") != FORMAT:
        raise ResumeError(_other_format(path, header))


def _other_format(path: Path, header: Mapping[str, Any]) -> str:
    return f"{path} has format {header.get('format')!r}; this version reads format {FORMAT}"
