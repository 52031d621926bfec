"""Evaluations on their way to other processes, and outcomes on their way back."""

import inspect
import os
import pickle
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mutorch.errors import RemoteError, WorkerError

from .evaluation import Evaluation, Outcome


@dataclass(frozen=True, slots=True)
class TorchSettings:
    """What torch computes by, so that a fresh process computes as this one does."""

    dtype: torch.dtype
    deterministic: tuple[bool, bool]
    matmul_precision: str
    cudnn: tuple[bool, bool]

    @classmethod
    def of_here(cls) -> "TorchSettings":
        """Those of this process."""
        return cls(
            torch.get_default_dtype(),
            (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
            torch.get_float32_matmul_precision(),
            (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        )

    def set_here(self) -> None:
        """Make them those of this process."""
        torch.set_default_dtype(self.dtype)
        torch.use_deterministic_algorithms(self.deterministic[0], warn_only=self.deterministic[1])
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = self.cudnn


def save_evaluation(evaluation: Evaluation, target: Any, pickler: Any, fix: str) -> None:
    """Write an evaluation and torch's settings to a path or an open binary file.

    Args:
        pickler: the module `cloudpickle`, or one like it, which can send what `pickle` cannot: lambdas, closures, notebooks.
        fix: ends the error about what cannot be sent.

    Errors:
        WorkerError: names what cannot be sent.
    """
    try:
        torch.save((TorchSettings.of_here(), evaluation), target, pickle_module=pickler, pickle_protocol=5)
    except Exception as error:
        path = ".".join(_unsendable(evaluation, pickler)) or "the evaluation"
        raise WorkerError(
            f"{path} cannot be sent to another process: {error}; make it inside of evaluate, {fix}"
        ) from error


def load_evaluation(source: Any, device: str | None = None) -> Evaluation:
    """Read it where it is to be run, and set torch up as it was.

    Tensors of a path stay in that file, which all processes of a machine then share: their pages are copied when written to.

    Args:
        device: takes the tensors that were on a GPU, if it is one.
    """
    to_device = None if device is None or torch.device(device).type == "cpu" else _Moved(device)
    settings, evaluation = torch.load(
        source, map_location=to_device, mmap=isinstance(source, str | os.PathLike), weights_only=False
    )
    settings.set_here()
    assert isinstance(evaluation, Evaluation)
    return evaluation


@dataclass(frozen=True, slots=True)
class _Moved:
    device: str

    def __call__(self, storage: Any, location: str) -> Any:
        if location == "cpu":
            return storage
        return torch.serialization.default_restore_location(storage, self.device)  # type: ignore[no-untyped-call]


def pack(outcome: Outcome, pickler: Any = pickle) -> bytes:
    """An outcome as bytes, whatever its error is."""
    error = None if outcome.error is None else pack_error(outcome.error, pickler)
    return pickle.dumps((outcome.index, outcome.result, outcome.seconds, error))


def unpack(data: bytes) -> Outcome:
    """The outcome."""
    index, result, seconds, error = pickle.loads(data)
    return Outcome(index, result, seconds, None if error is None else unpack_error(error))


def pack_error(error: Exception, pickler: Any = pickle) -> bytes:
    """An error as bytes, with its notes and where it was raised."""
    if error.__traceback__ is not None:
        error.add_note("in its worker:\n" + "".join(traceback.format_tb(error.__traceback__)).rstrip())
    told = (type(error).__name__, str(error), tuple(getattr(error, "__notes__", ())))
    return pickle.dumps((_dumped(error, pickler), told))


def unpack_error(data: bytes) -> Exception:
    """The error; one that cannot be read becomes a `RemoteError` with its name, text and notes."""
    whole, (name, text, notes) = pickle.loads(data)
    try:
        error = None if whole is None else pickle.loads(whole)
        if isinstance(error, Exception) and str(error) == text:
            return error
    except Exception:  # a constructor with other arguments, a module that is not here
        pass
    stand_in: Exception = type(name, (RemoteError,), {"__module__": RemoteError.__module__})(text)
    for note in notes:
        stand_in.add_note(note)
    return stand_in


def _dumped(error: Exception, pickler: Any) -> bytes | None:
    try:
        return bytes(pickler.dumps(error))
    except Exception:  # whatever a class of somebody else's raises
        return None


def _unsendable(thing: Any, pickler: Any, depth: int = 8) -> tuple[str, ...]:
    """The names that lead to what cannot be sent, as far as they can be followed."""
    if depth:
        for name, part in _parts(thing):
            try:
                pickler.dumps(part)
            except Exception:
                return (name, *_unsendable(part, pickler, depth - 1))
    return ()


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, Mapping):
        yield from ((str(name), part) for name, part in thing.items())
    elif isinstance(thing, tuple | list):
        yield from ((str(number), part) for number, part in enumerate(thing))
    elif inspect.isfunction(thing):
        used = inspect.getclosurevars(thing)
        yield from {**used.globals, **used.nonlocals}.items()
    elif hasattr(thing, "__slots__") and not hasattr(thing, "__dict__"):
        yield from ((name, getattr(thing, name)) for name in thing.__slots__ if hasattr(thing, name))
    else:
        yield from getattr(thing, "__dict__", {}).items()
