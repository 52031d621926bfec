"""The lines of a log: JSON, each with checksums of itself and of all lines before it."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from mutorch.cost import Costs

from .history import Trial

FORMAT = 2
_MARK = b', "check": "'
_OWN, _CHAIN = 4, 8  # bytes, of which each is two letters
_TAIL = len(_MARK) + 2 * (_OWN + _CHAIN) + len(b'"}')


def seal(content: Mapping[str, Any], chain: str) -> tuple[bytes, str]:
    """A line with its checksums, and the chain for the next one.

    Args:
        chain: of the line before, empty for the first.

    Example:
        >>> line, chain = seal({"closed": 3}, "")
        >>> line, chain
        (b'{"closed": 3, "check": "b39ac25a0d4f01165d13cc6d"}\\n', '0d4f01165d13cc6d')
        >>> unseal(line[:-1], "")
        ({'closed': 3}, '0d4f01165d13cc6d')
    """
    body = json.dumps(content).encode()
    own, chained = _checks(body, chain)
    return body[:-1] + _MARK + own + chained + b'"}\n', chained.decode()


def unseal(line: bytes, chain: str | None) -> tuple[dict[str, Any], str]:
    """What a line says, and the chain for the next one.

    Args:
        chain: of the line before; `None` to take any.

    Errors:
        ValueError: with what is wrong with it.
    """
    try:
        content = json.loads(line)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"it is no JSON object but {type(content).__name__}")
    if line[-_TAIL:][: len(_MARK)] != _MARK:
        raise ValueError("it does not end with a checksum" + (": its line end was changed" if b"\r" in line else ""))
    del content["check"]
    body, checks = line[:-_TAIL] + b"}", line[-_TAIL + len(_MARK) : -2]
    own, chained = checks[: 2 * _OWN], checks[2 * _OWN :]
    if own != _digest(body, _OWN):
        raise ValueError("its checksum does not fit what it says: it was changed after it was written")
    if chain is not None and chained != _checks(body, chain)[1]:
        raise ValueError("its checksum does not fit the lines before it: one was changed, removed, repeated or moved")
    return content, chained.decode(errors="replace")


@dataclass(slots=True)
class Scan:
    """What the lines of a log say, up to the first that is wrong.

    Attributes:
        header: the first line.
        trials: of the other lines.
        lines: how many are good; the one that closes the log is not counted.
        size: their bytes.
        chain: of the last of them.
        is_closed: whether the line that closes the log follows, and nothing else.
        wrong: what is wrong with line `number`.
        number: of the first line that is wrong, or would come next.
    """

    header: dict[str, Any] | None = None
    trials: list[Trial] = field(default_factory=list)
    lines: int = 0
    size: int = 0
    chain: str = ""
    is_closed: bool = False
    wrong: str | None = None
    number: int = 0


def scan(content: bytes) -> Scan:
    """Read a log and check every line of it."""
    found = Scan()
    indices: set[int] = set()
    for number, (line, is_whole) in enumerate(split(content), start=1):
        found.number = number
        try:
            if found.is_closed:
                raise ValueError("it comes after the line that closes the log")
            if not is_whole:
                raise ValueError("it is half a line")
            entry, chain = unseal(line, found.chain)
            if found.lines and "closed" in entry:
                found.is_closed = True
                continue
            if found.header is None:
                found.header = entry
            else:
                trial = trial_of(entry)
                if trial.index in indices:
                    raise ValueError(f"trial {trial.index} is there twice")
                indices.add(trial.index)
                found.trials.append(trial)
        except ValueError as error:
            found.is_closed = False
            found.wrong = str(error)
            break
        found.lines += 1
        found.size += len(line) + 1
        found.chain = chain
    else:
        found.number += 1
    return found


def split(content: bytes) -> Iterator[tuple[bytes, bool]]:
    """The lines without their ends, and whether they have one."""
    *lines, rest = content.split(b"\n")
    for line in lines:
        yield line, True
    if rest:
        yield rest, False


def entry_of(trial: Trial) -> dict[str, Any]:
    """What a line says of a trial."""
    costs = trial.costs
    return {
        "index": trial.index,
        "architecture": trial.architecture,
        "score": _number(trial.score),
        "metrics": {name: _number(value) for name, value in trial.metrics.items()},
        "costs": None
        if costs is None
        else [costs.macs, costs.params, costs.act_mem_mb, costs.size_mb, dict(costs.measured)],
        "seconds": trial.seconds,
        "values": [_number(value) for value in trial.values],
        "violation": _number(trial.violation),
        "error": trial.error,
    }


def trial_of(entry: Mapping[str, Any]) -> Trial:
    """The trial that a line tells of.

    Errors:
        ValueError: it tells of none.
    """
    try:
        return Trial(
            index=entry["index"],
            architecture=entry["architecture"],
            score=float(entry["score"]),
            metrics={name: float(value) for name, value in entry["metrics"].items()},
            costs=None if entry["costs"] is None else Costs(*entry["costs"]),
            seconds=entry["seconds"],
            values=tuple(float(value) for value in entry["values"]),
            violation=float(entry["violation"]),
            error=entry["error"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it is no trial ({type(error).__name__}: {error})") from None


def _number(value: float) -> float | str:
    """JSON has no infinities and no not-a-number: they are texts that `float` reads."""
    return value if math.isfinite(value) else str(value)


def _checks(body: bytes, chain: str) -> tuple[bytes, bytes]:
    return _digest(body, _OWN), _digest(chain.encode() + body, _CHAIN)


def _digest(content: bytes, size: int) -> bytes:
    return blake2b(content, digest_size=size).hexdigest().encode()
