"""A damaged log made whole again, and nothing of it lost silently."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mutorch.errors import ResumeError
from mutorch.utils import whole_file

from .lines import FORMAT, Scan, scan, seal, split, trial_of, unseal
from .lock import FileLock

_SHOWN = 10
"""Lines that are told of one by one."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was done to a log.

    Attributes:
        path: of the log.
        kept: how many trials are in it now.
        rejected: the numbers of the lines that were taken out, and why.
        rejected_file: where these lines are now; `None` if there were none.
        backup: the log as it was; `None` if nothing was wrong with it.
    """

    path: Path
    kept: int
    rejected: tuple[tuple[int, str], ...] = ()
    rejected_file: Path | None = None
    backup: Path | None = None

    def __str__(self) -> str:
        if self.backup is None:
            return f"{self.path}: nothing is wrong with it, {_count(self.kept, 'trial')}"
        lines = [f"{self.path}: {_count(self.kept, 'trial')} kept; as it was: {self.backup}"]
        if self.rejected:
            lines.append(f"{self.rejected_file}: {_count(len(self.rejected), 'line')} taken out")
        lines += [f"  line {number}: {why}" for number, why in self.rejected[:_SHOWN]]
        if len(self.rejected) > _SHOWN:
            lines.append(f"  and {len(self.rejected) - _SHOWN} more")
        return "\n".join(lines)


def repair(path: str | os.PathLike[str], *, keep_following: bool = False) -> Repaired:
    """Takes out of a log what cannot be trusted, so that its search goes on; says what it did.

    Lines that are taken out are added to `path.rejected`, and the log as it was is kept as `path.bak`. The trials that are missing
    then are evaluated again when the search goes on.

    Args:
        path: a log of `search`.
        keep_following: keep also the lines behind the first wrong one that are as they were written, and only those. Otherwise all
            behind it go.

    Errors:
        LogLockedError: a search writes it right now.
        ResumeError: no log; or one whose first line cannot be trusted, which says what the search was.

    Example:
        >>> import tempfile
        >>> from mutorch.search import Trial
        >>> from mutorch.search.log import Log
        >>> path = Path(tempfile.mkdtemp()) / "run.jsonl"
        >>> with Log(path, {"seed": 0}) as log:
        ...     for index in range(3):
        ...         log.append(Trial(index, {"op": "conv"}, 0.5))
        >>> _ = path.write_bytes(path.read_bytes()[:-100])
        >>> done = repair(path)
        >>> done.kept, done.rejected, done.rejected_file.name, done.backup.name
        (2, ((4, 'it is half a line'),), 'run.jsonl.rejected', 'run.jsonl.bak')
        >>> print(repair(path))
        /...run.jsonl: nothing is wrong with it, 2 trials
    """
    path = Path(path)
    if not path.is_file():
        raise ResumeError(f"there is no log {path}")
    lock = FileLock(path)
    is_done = False
    try:
        content = path.read_bytes()
        found = scan(content)
        if found.header is None or found.header.get("format") != FORMAT:
            why = found.wrong or f"its format is {(found.header or {}).get('format')!r}, and not {FORMAT}"
            raise ResumeError(
                f"{path}:1: this line cannot be trusted, and says what the search was: {why}; restore a copy, or start anew"
            )
        noted = lock.left.get("lines") if lock.left is not None else None
        if found.is_closed and (noted or 0) <= found.lines:
            done = Repaired(path, len(found.trials))
        else:
            done = _rewrite(path, content, found, keep_following)
        is_done = True
        return done
    finally:
        lock.release(remove=is_done or lock.left is None)


def _rewrite(path: Path, content: bytes, found: Scan, keep_following: bool) -> Repaired:
    kept, rejected = _sorted_out(content, found, keep_following)
    backup = _unused(path.with_name(f"{path.name}.bak"))
    shutil.copyfile(path, backup)
    rejected_file = path.with_name(f"{path.name}.rejected") if rejected else None
    if rejected_file is not None:
        with rejected_file.open("ab") as file:
            file.write(b"".join(line + b"\n" for _, line, _ in rejected))
            file.flush()
            os.fsync(file.fileno())
    chain = ""
    with whole_file(path) as partial, partial.open("wb") as file:
        for entry in [*kept, {"closed": len(kept)}]:
            line, chain = seal(entry, chain)
            file.write(line)
        file.flush()
        os.fsync(file.fileno())
    reasons = tuple((number, why) for number, _, why in rejected)
    return Repaired(path, len(kept) - 1, reasons, rejected_file, backup)


def _sorted_out(
    content: bytes, found: Scan, keep_following: bool
) -> tuple[list[dict[str, Any]], list[tuple[int, bytes, str]]]:
    """What the lines to keep say, and the others with their numbers and what is wrong with them."""
    kept: list[dict[str, Any]] = []
    rejected: list[tuple[int, bytes, str]] = []
    indices: set[int] = set()
    for number, (line, is_whole) in enumerate(split(content), start=1):
        if kept and _closes(line):
            continue
        try:
            if number == found.number and found.wrong is not None and not keep_following:
                raise ValueError(found.wrong)
            if number > found.number and not keep_following:
                raise ValueError(f"it comes after line {found.number}")
            if not is_whole:
                raise ValueError("it is half a line")
            entry, _ = unseal(line, None)
            if kept:
                index = trial_of(entry).index
                if index in indices:
                    raise ValueError(f"trial {index} is there twice")
                indices.add(index)
            kept.append(entry)
        except ValueError as error:
            rejected.append((number, line, str(error)))
    return kept, rejected


def _closes(line: bytes) -> bool:
    """Whether it is the line that closes a log, as it was written: it tells of no trial."""
    try:
        return "closed" in unseal(line, None)[0]
    except ValueError:
        return False


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _unused(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}{number}")
    return free
