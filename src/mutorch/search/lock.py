"""The lock of a file that one process writes: who writes it, and how far it got."""

import errno
import json
import os
import socket
import sys
import weakref
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mutorch.errors import LogLockedError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_SIZE = 256
"""Bytes of the note: less than a page, so a kill leaves the old one or the new one."""
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_HELD: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


class FileLock:
    """The right to write `path`, held until `release`, in a file `path.lock` beside it; it ends with the process, however that ends.

    The system's lock (`flock`) says whether somebody writes. The text in the file says who, and is what remains after a crash.

    Args:
        path: the file that is to be written.

    Attributes:
        path: of the lock file.
        left: what the last one left who did not release it, `None` if nobody did.

    Errors:
        LogLockedError: another process writes it, or this one already does.

    Example:
        >>> import tempfile
        >>> lock = FileLock(Path(tempfile.mkdtemp()) / "run.jsonl")
        >>> lock.left is None, lock.path.name
        (True, 'run.jsonl.lock')
        >>> lock.release()
        >>> lock.path.exists()
        False
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.lock")
        self._file = path
        self._descriptor = self._acquire()
        if sys.platform != "win32":
            _forget_in_forks()
        _HELD.add(self)
        try:
            self.left = _parse(_read(self._descriptor))
            self.note(None if self.left is None else self.left.get("lines"))
        except BaseException:
            self.release(remove=False)
            raise

    @property
    def is_held(self) -> bool:
        """Whether this process may write."""
        return self._descriptor >= 0

    def note(self, lines: int | None, *, sync: bool = False) -> None:
        """Note how many lines are safe on the disk; `None` while the file is as it was left."""
        content = {"pid": os.getpid(), "host": socket.gethostname()[:64], "lines": lines}
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, json.dumps(content).encode().ljust(_SIZE - 1) + b"\n")
        if sync:
            os.fsync(self._descriptor)
            sync_folder(self.path.parent)

    def release(self, *, remove: bool = True) -> None:
        """Let others write; without `remove`, what was noted stays and says that the file was not closed well."""
        if not self.is_held:
            return
        descriptor, self._descriptor = self._descriptor, -1
        _HELD.discard(self)
        if remove and sys.platform != "win32":
            self.path.unlink(missing_ok=True)  # while the lock is held, so that nobody else's is removed
        os.close(descriptor)
        if remove and sys.platform == "win32":  # where files that are open cannot be removed
            self.path.unlink(missing_ok=True)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.release(remove=False)

    def _acquire(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            try:
                self._lock(descriptor)
                if _is_file_at(descriptor, self.path):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its holder removed it just now: there is a new one, or none

    def _lock(self, descriptor: int) -> None:
        try:
            if sys.platform == "win32":
                os.lseek(descriptor, 4096, os.SEEK_SET)  # behind the text, which others may read
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            left = _parse(_read(descriptor)) or {}
            ours = any(os.path.samestat(os.fstat(descriptor), os.fstat(lock._descriptor)) for lock in list(_HELD))
            if error.errno not in _BUSY and not ours and not _is_alive(left):
                return  # a file system without locks: what the text says has to do
            who = f"process {left.get('pid')} on {left.get('host')}" if left else "another process"
            raise LogLockedError(
                f"{self._file} is being written by {who}; wait for it, end it, or give another log"
            ) from None


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system knows such a thing."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, _SIZE)


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except ValueError:  # nothing yet: its writer died before it touched the file
        return None
    return content if isinstance(content, dict) else None


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _is_alive(holder: Mapping[str, Any]) -> bool:
    """Whether the process of a note may still run: on another machine, nobody knows."""
    if not holder or sys.platform == "win32":
        return False
    if holder.get("host") != socket.gethostname()[:64]:
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return int(holder["pid"]) != os.getpid()


@cache
def _forget_in_forks() -> None:
    """A forked child gets the lock's descriptor too; it gives it up, so that the lock ends with its parent."""
    os.register_at_fork(after_in_child=_give_up)


def _give_up() -> None:
    for lock in list(_HELD):
        os.close(lock._descriptor)
        lock._descriptor = -1
    _HELD.clear()
