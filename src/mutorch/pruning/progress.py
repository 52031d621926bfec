"""What a long call shows while it works."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mutorch.errors import MissingExtraError
from mutorch.utils import require

Progress = Callable[[str, int, int, str], None]
"""Called with the stage, how much of it is done, how much there is, and a note."""


@contextmanager
def showing(progress: Progress | None) -> Iterator[Progress]:
    """The user's function, or one that shows bars on a terminal, or plain lines there without rich; else nothing.

    Example:
        >>> with showing(lambda stage, done, total, note: print(stage, done, total, note)) as show:
        ...     show("finetuning", 1, 2, "loss 0.5")
        finetuning 1 2 loss 0.5
    """
    if progress is not None:
        yield progress
    elif not sys.stderr.isatty():
        yield lambda *_: None
    else:
        with _on_terminal() as show:
            yield show


@contextmanager
def _on_terminal() -> Iterator[Progress]:
    try:
        rich = require("rich.progress", extra="cli")
        console = require("rich.console", extra="cli").Console(stderr=True)
    except MissingExtraError:
        yield _line
        return
    columns = ("{task.description:<20}", rich.BarColumn(30), rich.MofNCompleteColumn(), rich.TimeRemainingColumn())
    tasks: dict[str, object] = {}
    with rich.Progress(*columns, "{task.fields[note]}", console=console, transient=True) as bars:

        def show(stage: str, done: int, total: int, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note=note)
            bars.update(tasks[stage], completed=done, total=total, note=note)

        yield show


def _line(stage: str, done: int, total: int, note: str) -> None:
    print(f"{stage}: {done} of {total} {note}", file=sys.stderr)
