"""Subnets for where mutorch, or Python, is not: `torch.export` programs and ONNX."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mutorch.errors import ExportError
from mutorch.utils import evaluating, require

TOLERANCE = 1e-4
"""How far outputs of another runtime may be off, relative to the largest output."""


def save_program(model: nn.Module, path: str | os.PathLike[str], example_inputs: Tensor | tuple[Any, ...]) -> Path:
    """Write a `torch.export` program (`.pt2`), which `torch.export.load` runs without mutorch or the model's code.

    The batch (dimension 0 of every tensor) stays free where the model allows it. The model is exported in evaluation mode.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise ExportError(f"a program is saved as .pt2, got {path.name!r}")
    args = _args(example_inputs)
    with evaluating(model):
        try:
            program = torch.export.export(model, args, dynamic_shapes=_free_batch(args))
        except Exception:  # the model ties its batch size to a constant: keep the one of the example
            program = torch.export.export(model, args)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path)
    return path


def to_onnx(
    model: nn.Module, path: str | os.PathLike[str], example_inputs: Tensor | tuple[Any, ...], *, check: bool = True
) -> Path:
    """Write an ONNX file with torch's exporter and, unless told not to, run it in onnxruntime and compare.

    The batch stays free as in `save_program`. Needs the extra `onnx`.

    Errors:
        MissingExtraError: the extra is not installed.
        ExportError: onnxruntime's outputs differ by more than `TOLERANCE`.
    """
    path = Path(path)
    require("onnx", extra="onnx")
    require("onnxscript", extra="onnx")
    args = _args(example_inputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with evaluating(model), _quiet():
        try:
            _to_onnx(model, args, path, dynamic_shapes=_free_batch(args))
        except Exception:  # the model ties its batch size to a constant: keep the one of the example
            _to_onnx(model, args, path, dynamic_shapes=None)
        if check:
            with torch.no_grad():
                expected = [x for x in tree_flatten(model(*args))[0] if isinstance(x, Tensor)]
            _check_onnx(path, args, expected)
    return path


def onnx_forward(path: Path, args: tuple[Any, ...], threads: int | None = None) -> Callable[[], Any]:
    """A function that runs an ONNX file in onnxruntime, on the CPU; the file is read once.

    Args:
        threads: how many an operation may use; onnxruntime decides unless given.
    """
    runtime = require("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tensors = [x for x in tree_flatten(args)[0] if isinstance(x, Tensor)]
    feeds = {node.name: x.detach().cpu().numpy() for node, x in zip(session.get_inputs(), tensors, strict=True)}
    return lambda: session.run(None, feeds)


def _check_onnx(path: Path, args: tuple[Any, ...], expected: list[Tensor]) -> None:
    for number, (found, wanted) in enumerate(zip(onnx_forward(path, args)(), expected, strict=True)):
        scale = max(wanted.abs().max().item(), 1e-6) if wanted.numel() else 1.0
        off = (torch.from_numpy(found) - wanted.cpu()).abs().max().item() if wanted.numel() else 0.0
        if off > TOLERANCE * scale:
            raise ExportError(
                f"output {number} of {path} in onnxruntime is off by {off:.3g} (largest output {scale:.3g})"
            )


def _to_onnx(model: nn.Module, args: tuple[Any, ...], path: Path, *, dynamic_shapes: Any) -> None:
    torch.onnx.export(model, args, path, dynamo=True, external_data=False, verbose=False, dynamic_shapes=dynamic_shapes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on what else could be installed, and on its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def _args(example_inputs: Tensor | tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(example_inputs, Tensor):
        return (example_inputs,)
    if isinstance(example_inputs, tuple):
        return example_inputs
    raise TypeError(f"example_inputs must be a tensor or a tuple here, got {type(example_inputs).__name__}")


def _free_batch(args: tuple[Any, ...]) -> tuple[Mapping[int, Any] | None, ...]:
    batch = torch.export.Dim("batch")
    return tuple({0: batch} if isinstance(arg, Tensor) and arg.ndim and arg.shape[0] > 1 else None for arg in args)
