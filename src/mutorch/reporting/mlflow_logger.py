"""A search in MLflow."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mutorch.search import History, Trial
from mutorch.utils import require

from .flat import flat_run, numbers_of


class MLflowLogger:
    """Writes each trial to an MLflow run: score, metrics, costs and the best so far, with the trial's number as step. Needs the extra `mlflow`.

    A listener for `on_trial`, and a context manager: leaving it without `finish` marks the run as failed, or as killed after Ctrl-C.

    Args:
        tracking_uri: of the store, as `"sqlite:///mlflow.db"` or a server's; MLflow's own setting unless given.
        experiment: its name, made if there is none.
        run_name: MLflow makes one up unless given.

    Attributes:
        run_id: of the run.

    Errors:
        MissingExtraError: the extra is not installed.
    """

    def __init__(
        self, tracking_uri: str | None = None, *, experiment: str = "mutorch", run_name: str | None = None
    ) -> None:
        client = require("mlflow.tracking", extra="mlflow").MlflowClient
        self._entities = require("mlflow.entities", extra="mlflow")
        self._client: Any = client(tracking_uri)
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        self.run_id: str = self._client.create_run(number, run_name=run_name).info.run_id
        self._seen: set[int] = set()
        self._best: Trial | None = None
        self._is_open = True

    def __call__(self, trial: Trial, num_trials: int) -> None:
        """Write a trial at the step that is its number."""
        self._seen.add(trial.index)
        if self._best is None or trial.key < self._best.key:
            self._best = trial
        now = int(1000 * time.time())
        metrics = [
            self._entities.Metric(name, value, now, trial.index)
            for name, value in numbers_of(trial, self._best).items()
        ]
        self._client.log_batch(self.run_id, metrics=metrics)

    def finish(
        self,
        history: History,
        *,
        report: str | os.PathLike[str] | None = None,
        log: str | os.PathLike[str] | None = None,
        artifacts: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        """Write what is left, and end the run: trials that a log had already, what the search was as parameters, files.

        Args:
            report: what `write_report` returned; the pictures beside it go along.
            log: of the search.
            artifacts: other files.
        """
        for trial in history.trials:
            if trial.index not in self._seen:
                self(trial, len(history))
        for name, value in flat_run(history.run).items():
            self._client.log_param(self.run_id, name, str(value)[:6000])
        self._client.log_dict(self.run_id, dict(history.best.architecture), "best.json")
        pictures = [] if report is None else [Path(report), *sorted(Path(report).parent.glob("*.png"))]
        for file in (*pictures, *([] if log is None else [log]), *artifacts):
            self._client.log_artifact(self.run_id, os.fspath(file))
        self._end("FINISHED")

    def close(self, status: str = "FAILED") -> None:
        """End the run without a result; nothing if it has ended."""
        if self._is_open:
            self._end(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("KILLED" if kind is KeyboardInterrupt else "FAILED")

    def _end(self, status: str) -> None:
        self._client.set_terminated(self.run_id, status)
        self._is_open = False
