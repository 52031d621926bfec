"""Training states as files: written whole or not at all, and refused where they belong to another run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mutorch.errors import ResumeError
from mutorch.utils import differences, whole_file

FORMAT = 1


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any], *, run: Mapping[str, Any]) -> None:
    """Write a state of tensors and plain values.

    Args:
        run: what makes the run what it is (seed, space, recipe); a checkpoint is only resumed by an equal run.
    """
    with whole_file(path) as partial:
        torch.save({"format": FORMAT, "run": dict(run), "state": dict(state)}, partial)


def load_checkpoint(path: str | os.PathLike[str], *, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The state that was written, on the CPU; `None` if there is no file.

    Errors:
        ResumeError: not a checkpoint, or one of another run; says in what they differ.
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found, state = content["run"], content["state"]
    except Exception as error:
        raise ResumeError(f"{path} is no checkpoint of mutorch: {type(error).__name__}: {error}") from error
    if content.get("format") != FORMAT:
        raise ResumeError(f"{path} has format {content.get('format')!r}; this version reads format {FORMAT}")
    different = differences(found, run)
    if different:
        raise ResumeError(
            f"{path} belongs to another run ({different}); delete it, or give another path, to start anew"
        )
    return dict(state)
