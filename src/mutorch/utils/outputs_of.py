"""What a model gives, and what each of its modules does."""

from typing import Any

import torch
from torch import Tensor, nn

from .example_inputs import ExampleInputs, call
from .removing import removing
from .tensors_in import tensors_in
from .unchanged import unchanged


def outputs_of(model: nn.Module, example_inputs: ExampleInputs, *, modules: bool = True) -> dict[str, list[Tensor]]:
    """The tensors that the model gives, under `''`, and those that each module gave in its first call, by path."""
    outputs: dict[str, list[Tensor]] = {}

    def note(path: str, output: Any) -> None:
        outputs.setdefault(path, [x.clone() for x in tensors_in(output)])

    handles = [
        module.register_forward_hook(lambda _, __, output, path=path: note(path, output))
        for path, module in (model.named_modules() if modules else ())
        if path and not isinstance(module, torch.jit.ScriptModule)  # it takes no hooks
    ]
    with removing(handles), unchanged(model):
        note("", call(model, example_inputs))
    return outputs
