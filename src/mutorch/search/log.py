"""The log of a search: one line of JSON a trial, on the disk before the next trial begins."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from mutorch.cost import Costs
from mutorch.errors import ResumeError
from mutorch.utils import differences

from .history import Trial

FORMAT = 1
_BEGINNING = b'{"format"'


class Log:
    """An append-only file of trials. A line that a crash left half written is dropped when the file is opened again.

    Args:
        path: the file, made if missing; `None` for a log that is not kept.
        run: what makes the search what it is; only an equal run continues a file.

    Errors:
        ResumeError: a file of another run (says in what they differ), or one that is no log.
    """

    def __init__(self, path: str | os.PathLike[str] | None, run: Mapping[str, Any]) -> None:
        self.trials: list[Trial] = []
        self._file: IO[bytes] | None = None
        if path is None:
            return
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read(json.loads(json.dumps(run)))
        self._file = self.path.open("ab")
        self._file.truncate(whole)
        if whole == 0:
            self._write({"format": FORMAT, "run": dict(run)})

    def append(self, trial: Trial) -> None:
        """Write a trial and wait until it is on the disk."""
        self.trials.append(trial)
        self._write(_to_dict(trial))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, run: dict[str, Any]) -> int:
        """Read the trials; returns how many bytes are whole lines."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content.rfind(b"\n") + 1
        if not whole and content[: len(_BEGINNING)] != _BEGINNING[: len(content)]:
            raise ResumeError(f"{self.path} is no search log; give another path")
        for number, text in enumerate(content[:whole].splitlines()):
            try:
                line = json.loads(text)
                if number:
                    self.trials.append(_from_dict(line))
                else:
                    self._check(line, run)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ResumeError(f"{self.path}:{number + 1} is no line of a search log: {error}") from error
        return whole

    def _check(self, header: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        if header.get("format") != FORMAT:
            raise ResumeError(f"{self.path} has format {header.get('format')!r}; this version reads format {FORMAT}")
        found = header["run"]
        different = differences(found, run)
        if different:
            raise ResumeError(f"{self.path} belongs to another search ({different}); give another log to start anew")


def _to_dict(trial: Trial) -> dict[str, Any]:
    costs = trial.costs
    return {
        "index": trial.index,
        "architecture": trial.architecture,
        "score": _number(trial.score),
        "metrics": {name: _number(value) for name, value in trial.metrics.items()},
        "costs": None if costs is None else [costs.macs, costs.params, costs.act_mem_mb, costs.size_mb],
        "seconds": round(trial.seconds, 4),
        "values": [_number(value) for value in trial.values],
        "violation": _number(trial.violation),
        "error": trial.error,
    }


def _number(value: float) -> float | str:
    """JSON has no infinities and no not-a-number: they are texts that `float` reads."""
    return value if math.isfinite(value) else str(value)


def _from_dict(line: Mapping[str, Any]) -> Trial:
    return Trial(
        index=line["index"],
        architecture=line["architecture"],
        score=float(line["score"]),
        metrics={name: float(value) for name, value in line["metrics"].items()},
        costs=None if line["costs"] is None else Costs(*line["costs"]),
        seconds=line["seconds"],
        values=tuple(float(value) for value in line["values"]),
        violation=float(line["violation"]),
        error=line["error"],
    )
