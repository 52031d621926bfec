"""Candidates evaluated by actors of a Ray cluster."""

import io
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mutorch.errors import ConfigError, WorkerError
from mutorch.space import Architecture
from mutorch.utils import require

from .crew import CrewPool, News
from .evaluation import Evaluation
from .processes import check_numbers
from .sending import load_evaluation, pack, save_evaluation, unpack
from .workplace import Workplace, take_place


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Evaluates on a Ray cluster, on as many machines as it has: `search(..., workers=RayWorkers(16, num_gpus=1))`.

    Needs the extra `ray`. A Ray that this process is connected to already is used; else it connects to `address`, or starts Ray on
    this machine alone. What it started or connected to itself ends with the search. The evaluation is sent once, and each worker
    keeps it. A worker that ends, with its node or alone, is replaced, with a warning, and its trial is tried again.

    Args:
        count: how many workers; those that find no place in the cluster yet wait for one.
        num_cpus, num_gpus, resources: what one worker reserves, as for `ray.remote`.
        threads: with how many threads each of them computes.
        retries: how often a trial whose worker ended is tried again before it is an error.
        timeout: seconds that a trial may take; the worker is ended then, and the trial has an error.
        address: of the cluster, as for `ray.init`: `"auto"`, or `"ray://host:10001"`.
        start_timeout: seconds after which one worker must have found a place.

    Errors:
        ConfigError: arguments that cannot be.
        MissingExtraError: Ray is not installed.
        WorkerError: from `search`, about what cannot be sent, a trial that ends its workers, or a cluster without a place.
    """

    count: int
    num_cpus: float = 1
    num_gpus: float = 0
    resources: Mapping[str, float] | None = None
    threads: int = 1
    retries: int = 2
    timeout: float | None = None
    address: str | None = None
    start_timeout: float = 600.0

    def __post_init__(self) -> None:
        check_numbers(count=self.count, threads=self.threads, retries=self.retries, timeout=self.timeout)
        for name, amount in {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, **(self.resources or {})}.items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < math.inf:
                raise ConfigError(f"{name} of a worker must be a number of at least 0, got {amount!r}")

    def __call__(self, evaluation: Evaluation) -> CrewPool:
        """The pool, for `search`; nothing is started before there is something to evaluate."""
        crew = RayCrew(require("ray", extra="ray"), evaluation, self)
        return CrewPool(crew, self.count, retries=self.retries, timeout=self.timeout, start_timeout=self.start_timeout)


class RayCrew:
    """A `Crew` of actors."""

    def __init__(self, ray: Any, evaluation: Evaluation, workers: RayWorkers) -> None:
        self._ray = ray
        self._evaluation = evaluation
        self._workers = workers
        self._is_ours = False
        self._job: Any = None
        self._actors: dict[int, Any] = {}
        self._under_way: dict[Any, int] = {}  # what each worker is to answer: that it is ready, or an outcome

    def start(self, worker: int) -> None:
        if self._job is None:
            self._connect()
            self._job = self._ray.put(self._serialized())
        wanted = self._workers
        options = {"num_cpus": wanted.num_cpus, "num_gpus": wanted.num_gpus, "resources": dict(wanted.resources or {})}
        kind = self._ray.remote(_Actor).options(**options, max_restarts=0, max_task_retries=0)
        place = Workplace(worker, "cuda" if wanted.num_gpus else None, wanted.threads)
        actor = self._actors[worker] = kind.remote(self._job, place, sys.path)
        self._under_way[actor.ready.remote()] = worker

    def send(self, worker: int, index: int, architecture: Architecture) -> None:
        self._under_way[self._actors[worker].evaluate.remote(index, dict(architecture))] = worker

    def wait(self, seconds: float | None) -> list[News]:
        done, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=seconds)
        return [self._news(one, self._under_way.pop(one)) for one in done]

    def kill(self, worker: int) -> None:
        self._under_way = {one: whose for one, whose in self._under_way.items() if whose != worker}
        actor = self._actors.pop(worker)
        with suppress(self._ray.exceptions.RayError):  # it is gone already
            self._ray.kill(actor)

    def close(self) -> None:
        try:
            for worker in list(self._actors):
                self.kill(worker)
        finally:
            self._job = None
            if self._is_ours:
                self._ray.shutdown()

    @property
    def shortage(self) -> str:
        wanted = self._workers
        each = {"CPU": wanted.num_cpus, "GPU": wanted.num_gpus, **(wanted.resources or {})}
        there = self._ray.cluster_resources() if self._ray.is_initialized() else {}
        return (
            f"each worker wants { ({name: amount for name, amount in each.items() if amount}) }, and the whole cluster has "
            f"{ {name: there.get(name, 0) for name in each} }; what evaluate imports must be there on every node"
        )

    def _news(self, answer: Any, worker: int) -> News:
        try:
            message = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            self.kill(worker)
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
            return News(worker, ended=f"{type(error).__name__}, {lines[-1].partition(' Some common causes')[0]}")
        return News(worker, None if message is None else unpack(message))

    def _serialized(self) -> bytes:
        file = io.BytesIO()
        save_evaluation(
            self._evaluation, file, self._ray.cloudpickle, "or evaluate with workers=Processes(...) instead"
        )
        return file.getvalue()

    def _connect(self) -> None:
        if self._ray.is_initialized():
            return
        address = self._workers.address or os.environ.get("RAY_ADDRESS")
        try:
            if address is not None:
                self._ray.init(address=address, logging_level=logging.ERROR)
            else:
                cpus = max(os.cpu_count() or 1, math.ceil(self._workers.count * self._workers.num_cpus))
                with _no_usage_report():
                    self._ray.init("local", num_cpus=cpus, include_dashboard=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WorkerError(f"no Ray at {address or 'this machine'}: {error}") from error
        self._is_ours = True


class _Actor:
    """One worker, in a process of Ray."""

    def __init__(self, job: bytes, place: Workplace, path: Sequence[str]) -> None:
        sys.path.extend(
            folder for folder in path if folder not in sys.path
        )  # modules beside a script, where nodes share files
        take_place(place)
        self._evaluation = load_evaluation(io.BytesIO(job), place.device)
        self._pickler = require("ray.cloudpickle", extra="ray")

    def ready(self) -> None:
        """Nothing, once it is."""

    def evaluate(self, index: int, architecture: Architecture) -> bytes:
        return pack(self._evaluation(index, architecture), self._pickler)


@contextmanager
def _no_usage_report() -> Iterator[None]:
    """A Ray that is started meanwhile sends nobody what it is used for, unless the user says so."""
    name = "RAY_USAGE_STATS_ENABLED"
    before = os.environ.get(name)
    os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
