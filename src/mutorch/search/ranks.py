"""Candidates evaluated by the ranks of torch.distributed, as torchrun starts them."""

import signal
import threading
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from torch import distributed

from mutorch.errors import ConfigError, StateError, WorkerError
from mutorch.space import Architecture
from mutorch.utils import differences

from .evaluation import Evaluation, Outcome, SubnetEvaluation
from .log import Log
from .sending import pack, pack_error, unpack, unpack_error
from .workplace import Workplace, at_place

ARRIVAL = 600.0
TIMEOUT = 24 * 3600.0


def are_many() -> bool:
    """Whether this process is one of several of torch.distributed."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


class Ranks:
    """A `Pool` of all ranks: each evaluates its share, and all have all outcomes, in the same order.

    Every rank makes the same search, so strategies and histories are the same everywhere, and the same as in one process. In each
    round every rank takes one of the trials that wait. Whatever ends the search on one rank ends it on all. Rank 0 alone reads and
    writes the log and has listeners. `search(..., workers=0)` takes this pool where torch.distributed has several processes.

    Args:
        evaluation: what is done for each trial.
        arrival: seconds within which every rank must have come here.
        timeout: seconds that the slowest trial of a round may take longer than the fastest.
    """

    def __init__(self, evaluation: Evaluation, *, arrival: float = ARRIVAL, timeout: float = TIMEOUT) -> None:
        if not (distributed.is_available() and distributed.is_initialized()):
            raise StateError(
                "Ranks needs torch.distributed: start with torchrun, and call torch.distributed.init_process_group() first"
            )
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self._evaluation = evaluation
        self._arrival, self._timeout = arrival, timeout
        self._waiting: deque[tuple[int, Architecture]] = deque()
        self._done: deque[Outcome] = deque()
        self._group: Any = None
        self._is_alone = False  # others left, and take part in nothing any more
        self._is_interrupted = False
        self._interrupt = _Interrupt()

    def submit(self, index: int, architecture: Architecture) -> None:
        self._waiting.append((index, architecture))

    def result(self) -> Outcome:
        if not self._done:
            if self._is_interrupted:
                raise KeyboardInterrupt
            self._round()
        return self._done.popleft()

    def agree(self, value: bool) -> bool:
        """What rank 0 says."""
        return bool(self._exchange("agree", value)[0])

    def open_log(self, open_: Callable[[], Log], run: Mapping[str, Any]) -> Log:
        """The log, opened by rank 0; on the others one that is not kept, with the same trials.

        Errors:
            ConfigError: the ranks search different things, or with different weights, or have layers that compute with all ranks.
            Exception: that of opening the log, on all ranks.
        """
        _check_alone(self._evaluation)
        book, error = Log(None, run), None
        if self.rank == 0:
            try:
                book = open_()
            except Exception as one:
                error = one
        found = None if error is None else pack_error(error)
        told = self._exchange("log", (dict(run), _fingerprints(self._evaluation), book.trials, found))
        try:
            if error is not None:
                raise error
            if told[0][3] is not None:
                raise unpack_error(told[0][3])
            for rank, (other, weights, _, _) in enumerate(told):
                _check_same(rank, differences(told[0][0], other), told[0][1], weights)
        except BaseException:
            book.close()
            raise
        if self.rank != 0:
            book.trials = list(told[0][2])
        return book

    def __enter__(self) -> Self:
        try:
            # The first group is made when all have come, and waits not longer than that; trials may take longer.
            arrived = distributed.new_group(backend="gloo", timeout=timedelta(seconds=self._arrival))
            self._group = distributed.new_group(backend="gloo", timeout=timedelta(seconds=self._timeout))
            distributed.destroy_process_group(arrived)
        except RuntimeError as error:
            raise WorkerError(
                f"not all of {self.count} ranks began this search within {self._arrival:g} seconds: call it on every rank, or give "
                f"workers=InProcess, from mutorch.search, for a search of this rank alone; {error}"
            ) from error
        self._interrupt.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        why = None if error is None else f"ended its search with {type(error).__name__}: {error}"
        try:
            if not self._is_alone:
                left = self._exchange("left", why)
                if error is None and any(left):
                    rank = next(rank for rank, text in enumerate(left) if text)
                    raise WorkerError(f"rank {rank} {left[rank]}")
        finally:
            distributed.destroy_process_group(self._group)
            self._interrupt.uninstall()

    def _round(self) -> None:
        """One trial on each rank."""
        shares = [self._waiting.popleft() for _ in range(min(self.count, len(self._waiting)))]
        if not shares:
            raise StateError("no trial was submitted that has no result yet")
        mine = None
        if self.rank < len(shares):
            with at_place(Workplace(self.rank)), self._interrupt:
                mine = pack(self._evaluation(*shares[self.rank]))
        told = self._exchange("round", (mine, self._interrupt.came))
        self._done.extend(unpack(outcome) for outcome, _ in told if outcome is not None)
        if any(interrupted for _, interrupted in told):
            self._interrupt.came, self._is_interrupted = False, True
            if not self._done:
                raise KeyboardInterrupt

    def _exchange(self, what: str, value: Any) -> list[Any]:
        """What each rank says, at the same step of the same search."""
        told: list[Any] = [None] * self.count
        try:
            distributed.all_gather_object(told, (what, value), group=self._group)
        except RuntimeError as error:
            self._is_alone = True
            raise WorkerError(
                f"rank {self.rank} lost the others: one of them ended, see its error, or took {self._timeout:g} seconds longer; "
                f"{error}"
            ) from error
        except BaseException:
            self._is_alone = True
            raise
        elsewhere = "is at another step of its search"
        for rank, (step, said) in enumerate(told):
            if step != what and what != "left":
                self._is_alone = True
                how = said if step == "left" and said else elsewhere
                raise WorkerError(f"rank {rank} {how}, and the search cannot go on without it")
        return [said if step == what else elsewhere for step, said in told]


class _Interrupt:
    """Ctrl-C, raised at once in an evaluation, and else kept until all ranks can be told of it. A second one is always raised."""

    def __init__(self) -> None:
        self.came = False
        self._may_raise = False
        self._before: list[Any] = []

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before.append(signal.signal(signal.SIGINT, self._on_signal))

    def uninstall(self) -> None:
        """Handle Ctrl-C as before; one that nobody was told of is raised."""
        if self._before:
            signal.signal(signal.SIGINT, self._before.pop() or signal.SIG_DFL)
            if self.came:
                signal.raise_signal(signal.SIGINT)

    def __enter__(self) -> None:
        self._may_raise = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._may_raise = False
        self.came = self.came or kind is KeyboardInterrupt
        return kind is KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        again, self.came = self.came, True
        if again or self._may_raise:
            raise KeyboardInterrupt


def _check_alone(evaluation: Evaluation) -> None:
    subnets = evaluation.evaluate
    if isinstance(subnets, SubnetEvaluation):
        for name, module in subnets.net.named_modules():
            if isinstance(module, torch.nn.SyncBatchNorm):
                raise ConfigError(
                    f"{name!r} is a SyncBatchNorm, which computes with all ranks, and they evaluate different candidates: load the "
                    "weights into the same supernet with BatchNorm, whose names are the same, and search that"
                )


def _fingerprints(evaluation: Evaluation) -> dict[str, int]:
    """What scores depend on, by name: parameters, and what batches have not been measured anew for."""
    subnets = evaluation.evaluate
    if not isinstance(subnets, SubnetEvaluation):
        return {}
    tensors: dict[str, torch.Tensor] = {**dict(subnets.net.named_parameters())}
    if subnets.calibrate is None or subnets.calibrate is False:
        tensors |= dict(subnets.net.named_buffers())
    return {
        name: zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for name, tensor in tensors.items()
        if tensor.numel()
    }


def _check_same(rank: int, different: str, weights: Mapping[str, int], others: Mapping[str, int]) -> None:
    if different:
        raise ConfigError(f"rank {rank} searches something else than rank 0 ({different}); give the same on every rank")
    changed = [name for name in (*weights, *others) if weights.get(name) != others.get(name)]
    if changed:
        raise ConfigError(
            f"rank {rank} has other weights or statistics than rank 0, first in {changed[0]!r}: load the same supernet on every "
            "rank; statistics of BatchNorm, which DistributedDataParallel lets differ, are measured anew with calibrate=batches"
        )
