"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to; what was written takes the place of `path` at the end, and is removed after an error.

    Folders are made. The file gets the permissions of any new file, also from writers that give it their own.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "new" / "notes.txt"
        >>> with whole_file(target) as partial:
        ...     _ = partial.write_text("done")
        >>> target.read_text(), partial.exists()
        ('done', False)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)
        os.replace(partial, path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
