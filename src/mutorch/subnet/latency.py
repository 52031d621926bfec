"""Measuring how long a plain model takes, in a runtime, on a device."""

import copy
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from mutorch.cost import ExampleInputs, Measured
from mutorch.cost.latency import check_times, in_turns, steadied, warn_if_noisy
from mutorch.errors import ConfigError, MeasureError, nearest
from mutorch.utils import evaluating

from .runtimes import RUNTIMES

Board = Callable[[nn.Module, ExampleInputs], Any]
"""Takes a plain model in evaluation mode and its inputs, and returns the milliseconds of a forward, or a list of them."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class LatencyRunner:
    """How a latency is measured; called with a plain model and example inputs, it measures.

    The model is copied, put into evaluation mode, warmed up (and compiled) and then timed, without gradients; a device is
    waited for. A warning says where the times vary by more than 10% of their median.

    Args:
        runtime: `"eager"`, `"compile"` (`torch.compile`), `"onnxruntime"` (on the CPU, through `to_onnx`), or a function of
            (model, example inputs) that returns milliseconds, or a list of them: a phone, a board, a simulator.
        device: such as `"cuda"`; where the model is unless given. For a function of yours, what to call its device.
        dtype: `"fp32"`, `"fp16"` or `"bf16"`; that of the model unless given.
        threads: of the CPU; as they are unless given.
        warmup: forwards that are not timed; 3 unless given, none for a function of yours.
        repeats: how many are timed; 30 unless given, one call for a function of yours.
        batch: repeats the first sample of the inputs that often; the inputs as they are unless given.

    Errors:
        ConfigError: an unknown runtime, type of numbers or device, or an option that the runtime does not have.

    Example:
        >>> def board(model, inputs):
        ...     return 0.001 * sum(parameter.numel() for parameter in model.parameters())
        >>> LatencyRunner(board, device="board 1")(nn.Linear(10, 10), torch.zeros(1, 10)).median_ms
        0.11
    """

    runtime: str | Board = "eager"
    device: str | None = None
    dtype: str | None = None
    threads: int | None = None
    warmup: int | None = None
    repeats: int | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.runtime, str):
            if self.runtime not in RUNTIMES:
                raise ConfigError(f"no runtime {self.runtime!r}; {nearest(self.runtime, RUNTIMES)}, or a function")
            _check_device(self.device)
        elif not callable(self.runtime):
            raise ConfigError(f"a runtime is a name or a function of (model, inputs), got {self.runtime!r}")
        elif self.dtype is not None or self.threads is not None:
            option = "dtype" if self.dtype is not None else "threads"
            raise ConfigError(f"{self.name} measures by itself: {option} has no effect on it; leave it out")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"no dtype {self.dtype!r}; {nearest(self.dtype, DTYPES)}")
        if self.runtime == "onnxruntime" and (self.dtype == "bf16" or self.device not in (None, "cpu")):
            raise ConfigError(
                f"onnxruntime is measured on the CPU in fp32 or fp16, got device={self.device!r}, dtype={self.dtype!r}; give a "
                "function that runs your session for others"
            )
        if self.runtime == "onnxruntime":
            object.__setattr__(self, "device", "cpu")  # wherever the model is
        for option, least in (("threads", 1), ("warmup", 0), ("repeats", 1), ("batch", 1)):
            value = getattr(self, option)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigError(f"{option} must be a whole number from {least} on, got {value!r}")

    @property
    def name(self) -> str:
        """The runtime in a word."""
        if isinstance(self.runtime, str):
            return self.runtime
        return str(getattr(self.runtime, "__qualname__", type(self.runtime).__name__))

    def __call__(self, model: nn.Module, example_inputs: ExampleInputs) -> Measured:
        """The latency of one forward of `model`, which is left as it is.

        Errors:
            MeasureError: a function of yours that returned nothing, or what is no positive number.
            ConfigError: a device that is not there, or example inputs that cannot be changed as asked.
        """
        measured = self.in_turns([model], example_inputs)
        warn_if_noisy(measured)
        return measured[0]

    def in_turns(self, models: Sequence[nn.Module], example_inputs: ExampleInputs) -> list[Measured]:
        """The latency of each of several models, which take turns: what a machine does to all of them in a turn is taken out."""
        if not models:
            return []
        inputs = self._inputs(example_inputs)
        if not isinstance(self.runtime, str):
            times = steadied(self._called(self.runtime, models, inputs))
            batch = _batch(inputs)
            return [Measured.of(taken, runtime=self.name, device=self.device, batch=batch) for taken in times]
        prepare = RUNTIMES[self.runtime]
        copies = [self._copy(model) for model in models]
        with _threads(self.threads):
            forwards = [prepare(model, inputs, self.threads) for model in copies]
            with torch.inference_mode():
                turns = in_turns(
                    forwards,
                    warmup=3 if self.warmup is None else self.warmup,
                    repeats=30 if self.repeats is None else self.repeats,
                    wait=_wait(copies, inputs),
                )
            times = steadied([[[one] for one in taken] for taken in turns])
            threads = torch.get_num_threads() if self.runtime != "onnxruntime" else self.threads
        return [
            Measured.of(
                taken,
                runtime=self.runtime,
                device=str(_where(model, inputs)),
                dtype=_dtype(model, inputs),
                threads=threads,
                batch=_batch(inputs),
            )
            for model, taken in zip(copies, times, strict=True)
        ]

    def _called(self, board: Board, models: Sequence[nn.Module], inputs: ExampleInputs) -> list[list[list[float]]]:
        """What the function says, by model and turn."""
        times: list[list[list[float]]] = [[] for _ in models]
        warmup, repeats = self.warmup or 0, 1 if self.repeats is None else self.repeats
        with evaluating(*models):
            for turn in range(warmup + repeats):
                for model, taken in zip(models, times, strict=True):
                    found = _milliseconds(board(model, inputs), self.name)
                    check_times(found, self.name)
                    taken += [found] if turn >= warmup else []
        return times

    def _copy(self, model: nn.Module) -> nn.Module:
        copied = copy.deepcopy(model).eval()
        return copied.to(device=self.device, dtype=None if self.dtype is None else DTYPES[self.dtype])

    def _inputs(self, example_inputs: ExampleInputs) -> ExampleInputs:
        own = isinstance(self.runtime, str)
        changes = {"batch": self.batch, **({"device": self.device, "dtype": self.dtype} if own else {})}
        if isinstance(example_inputs, Tensor | tuple | list | Mapping):
            batched = example_inputs if self.batch is None else _of_batch(example_inputs, self.batch)
            moved: ExampleInputs = tree_map(self._moved, batched) if own else batched
            return moved
        for option, value in changes.items():
            if value is not None:
                raise ConfigError(
                    f"example_inputs is a function, which makes its own tensors: {option}={value!r} cannot be applied; give a "
                    "tensor, a tuple or a dict, or leave it out"
                )
        return example_inputs

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.to(self.device, DTYPES[self.dtype] if self.dtype and value.is_floating_point() else value.dtype)


def machine(device: str | None) -> str:
    """The name of a device, for people."""
    if device is not None and device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _milliseconds(result: Any, name: str) -> list[float]:
    """What a function of the user's returned, as a list of milliseconds."""
    if result is None:
        raise MeasureError(f"{name} returned nothing; return the milliseconds of one forward, or a list of them")
    values = result.tolist() if isinstance(result, Tensor | np.ndarray | np.generic) else result
    found = list(values) if isinstance(values, list | tuple) else [values]
    for value in found:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise MeasureError(f"{name} returned {value!r}; return milliseconds, or a list of them")
    if not found:
        raise MeasureError(f"{name} returned an empty list; return the milliseconds of one forward, or several")
    return [float(value) for value in found]


def _of_batch(inputs: Any, batch: int) -> Any:
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    firsts = {tensor.shape[0] if tensor.ndim else None for tensor in tensors}
    if len(firsts) != 1 or None in firsts or 0 in firsts:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors) or "no tensor"
        raise ConfigError(
            f"batch={batch} needs tensors whose first dimension is the batch; example_inputs has {shapes}"
        )
    return tree_map(
        lambda leaf: leaf[:1].repeat(batch, *[1] * (leaf.ndim - 1)) if isinstance(leaf, Tensor) else leaf, inputs
    )


def _check_device(device: str | None) -> None:
    if device is None:
        return
    try:
        kind = torch.device(device)
        available = kind.type == "cpu" or torch.get_device_module(kind).is_available()
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"no device {device!r}; {nearest(device, ('cpu', 'cuda', 'mps', 'xpu'))}") from error
    if not available:
        raise ConfigError(
            f"the device {device!r} is not available here; measure where it is, or give a function as runtime"
        )


def _where(model: nn.Module, inputs: ExampleInputs) -> torch.device:
    tensors = [*model.parameters(), *model.buffers(), *_tensors(inputs)]
    return tensors[0].device if tensors else torch.device("cpu")


def _wait(models: Sequence[nn.Module], inputs: ExampleInputs) -> Callable[[], object] | None:
    devices = {device for device in (_where(model, inputs) for model in models) if device.type != "cpu"}
    if not devices:
        return None
    return lambda: [torch.get_device_module(device).synchronize() for device in devices]


def _dtype(model: nn.Module, inputs: ExampleInputs) -> str:
    floating = [tensor.dtype for tensor in (*model.parameters(), *_tensors(inputs)) if tensor.is_floating_point()]
    names = {dtype: name for name, dtype in DTYPES.items()}
    first = floating[0] if floating else torch.get_default_dtype()
    return names.get(first, str(first).removeprefix("torch."))


def _batch(inputs: ExampleInputs) -> int | None:
    tensors = [tensor for tensor in _tensors(inputs) if tensor.ndim]
    return tensors[0].shape[0] if tensors else None


def _tensors(inputs: ExampleInputs) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)
