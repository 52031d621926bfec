"""A search in TensorBoard."""

import math
import os
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from mutorch.search import History, Trial
from mutorch.utils import require

from .figures import figures_of
from .flat import flat_run, numbers_of


class TensorBoardLogger:
    """Writes each trial to TensorBoard: score, objectives, metrics, costs, seconds, and the best so far. Needs the extra `tensorboard`.

    A listener for `on_trial`, and a context manager. `finish` adds what only the history knows.

    Args:
        folder: for the event files; one folder is one run.

    Errors:
        MissingExtraError: the extra is not installed.

    Example:
        >>> import tempfile
        >>> from mutorch.search import search_space
        >>> from mutorch.space import Decision, SearchSpace
        >>> space = SearchSpace([Decision("depth", (1, 2, 3))])
        >>> with TensorBoardLogger(tempfile.mkdtemp()) as logger:
        ...     history = search_space(space, lambda a: a["depth"], num_trials=3, on_trial=logger)
        ...     logger.finish(history)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        require("tensorboard", extra="tensorboard")
        self._writer: Any = require("torch.utils.tensorboard", extra="tensorboard").SummaryWriter(os.fspath(folder))
        self._seen: set[int] = set()
        self._best: Trial | None = None

    def __call__(self, trial: Trial, num_trials: int) -> None:
        """Write a trial at the step that is its number."""
        self._seen.add(trial.index)
        if self._best is None or trial.key < self._best.key:
            self._best = trial
        for name, value in numbers_of(trial, self._best).items():
            self._writer.add_scalar(name, value, trial.index)

    def finish(self, history: History, *, figures: bool = True) -> None:
        """Write what is left, and close: trials that a log had already, settings and result as hyperparameters, figures.

        Args:
            figures: whether figures are written as images; needs the extra `report`.
        """
        _write_missing(self, history.trials, self._seen)
        run = {name: value for name, value in flat_run(history.run).items() if value is not None}
        best = history.best.score
        self._writer.add_hparams(run, {"best": best if math.isfinite(best) else math.nan}, run_name=".")
        if figures:
            for name, figure in figures_of(history).items():
                self._writer.add_figure(name, figure, len(history) - 1, close=False)
        self.close()

    def close(self) -> None:
        """Write what is buffered, and close the file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _write_missing(listener: Any, trials: Iterable[Trial], seen: set[int]) -> None:
    missing = [trial for trial in trials if trial.index not in seen]
    for trial in missing:
        listener(trial, len(missing))
