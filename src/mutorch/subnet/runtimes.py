"""What runs a plain model where its latency is measured: each gives a function that runs one forward."""

import tempfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.utils import ExampleInputs, call

from .programs import onnx_forward, to_onnx

Forward = Callable[[], object]
_names = count()


def _eager(model: nn.Module, inputs: ExampleInputs, _: int | None) -> Forward:
    return lambda: call(model, inputs)


def _compiled(model: nn.Module, inputs: ExampleInputs, _: int | None) -> Forward:
    """With `torch.compile`; it is compiled here, so that no timed forward does."""
    compiled = cast(nn.Module, torch.compile(_with_own_code(model), dynamic=False))
    # Where graphs break, subnets share code: a limit that is hit would leave the rest uncompiled, and say nothing.
    settings: Any = torch._dynamo.config
    with torch.inference_mode(), settings.patch(recompile_limit=1024, fail_on_recompile_limit_hit=True):
        call(compiled, inputs)
    return lambda: call(compiled, inputs)


def _with_own_code(model: nn.Module) -> Callable[..., Any]:
    """The model as a function of its own: what is compiled is kept by code, eight times, and subnets share classes."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        return model(*args, **kwargs)

    code = forward.__code__.replace(co_name=f"forward_{next(_names)}")
    return FunctionType(code, forward.__globals__, code.co_name, closure=forward.__closure__)


def _onnx(model: nn.Module, inputs: ExampleInputs, threads: int | None) -> Forward:
    """In onnxruntime on the CPU, through `to_onnx`."""
    args: tuple[Any, ...] | None = (inputs,) if isinstance(inputs, Tensor) else None
    args = tuple(inputs) if isinstance(inputs, tuple | list) else args
    if args is None:
        raise ConfigError(
            f"the runtime onnxruntime takes example_inputs that are a tensor or a tuple, got {type(inputs).__name__}"
        )
    with tempfile.TemporaryDirectory() as folder:
        return onnx_forward(to_onnx(model, Path(folder) / "subnet.onnx", args, check=False), args, threads)


RUNTIMES: Mapping[str, Callable[[nn.Module, ExampleInputs, int | None], Forward]] = {
    "eager": _eager,
    "compile": _compiled,
    "onnxruntime": _onnx,
}
"""From the name of a runtime to what prepares a model, its inputs and a number of threads."""
