"""The newest checkpoint of a folder, by name."""

import warnings
from pathlib import Path

from mutorch.errors import MutorchError


class CheckpointNameError(MutorchError, ValueError):
    """A checkpoint whose name does not say how new it is."""


def find_latest_checkpoint(path: str | Path, suffix: str = "pth") -> str | None:
    """The path of `latest.<suffix>`, else of the file with the largest number; `None` if none.

    The number stands after the last `_`: `epoch_12.pth` is newer than `epoch_9.pth`. A missing
    or empty folder is worth a warning, a name without a number raises an error that is also a
    `ValueError`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> for name in ("epoch_9.pth", "epoch_12.pth"):
        ...     (Path(folder.name) / name).touch()
        >>> Path(find_latest_checkpoint(folder.name)).name
        'epoch_12.pth'
        >>> folder.cleanup()
    """
    folder, suffix = Path(path), suffix.lstrip(".")
    if not folder.exists():
        warnings.warn(f"no checkpoint found: the folder '{folder}' does not exist", stacklevel=2)
        return None
    latest = folder / f"latest.{suffix}"
    if latest.exists():
        return str(latest)
    numbered = [(_number(file), str(file)) for file in folder.glob(f"[!.]*.{suffix}")]
    if not numbered:
        warnings.warn(f"no checkpoint found: '{folder}' has no *.{suffix}", stacklevel=2)
        return None
    return max(numbered)[1]


def _number(file: Path) -> int:
    text = file.name.rpartition("_")[2].partition(".")[0]
    try:
        return int(text)
    except ValueError:
        raise CheckpointNameError(
            f"checkpoint '{file}' has no number after its last '_'; name it as in 'epoch_12.pth', "
            f"or name the newest one 'latest{file.suffix}'"
        ) from None
