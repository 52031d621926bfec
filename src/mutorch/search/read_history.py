"""A log read for what is in it, without the search that wrote it."""

import os
from pathlib import Path

from mutorch.errors import ResumeError

from .history import History
from .lines import scan
from .log import damage


def read_history(path: str | os.PathLike[str]) -> History:
    """The trials of a log, in order, also while a search still writes it.

    `interrupted` says that the line that closes a log is missing: its search runs, or was killed, or the log was cut.

    Errors:
        ResumeError: no log, or one with a line in it that cannot be trusted.

    Example:
        >>> import tempfile
        >>> from mutorch.search import search_space
        >>> from mutorch.space import Decision, SearchSpace
        >>> log = Path(tempfile.mkdtemp()) / "run.jsonl"
        >>> space = SearchSpace([Decision("depth", (1, 2, 3))])
        >>> _ = search_space(space, lambda a: a["depth"], num_trials=3, log=log)
        >>> history = read_history(log)
        >>> history.best.architecture, history.run["strategy"], history.interrupted
        ({'depth': 3}, 'evolution', False)
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ResumeError(f"cannot read the log {path}: {error.strerror}") from error
    found = scan(content)
    if found.header is None or not isinstance(found.header.get("run"), dict):
        raise ResumeError(
            f"{path} is no search log, or its first line cannot be trusted: {found.wrong or 'it is empty'}"
        )
    # The last line of a search that runs may be half written.
    if found.wrong is not None and b"\n" in content[found.size :]:
        raise ResumeError(
            f"{damage(path, found, content, None)}; `mutorch repair {path}` keeps the {found.lines - 1} trials before it"
        )
    run = found.header["run"]
    trials = sorted(found.trials, key=lambda trial: trial.index)
    return History(trials, not found.is_closed, False, tuple(run.get("objective", ())), run)
