"""A model of the original class, cut to the sizes of a file."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import LoadError, nearest
from mutorch.ops.dynamic import refill_flat_weights_


def remove_(model: nn.Module, blocks: Mapping[str, Sequence[str]], source: str) -> None:
    """Remove the blocks that an export left out, by the path of their row, in place.

    Errors:
        LoadError: a row or block that the model does not have; nothing is changed.
    """
    modules = dict(model.named_modules())
    for path, names in blocks.items():
        missing = [name for name in names if path not in modules or name not in modules[path]._modules]
        if missing:
            raise LoadError(
                f"{source} lacks block {missing[0]!r} of {path!r}, which {type(model).__name__} does not have"
            )
    for path, names in blocks.items():
        for name in names:
            del modules[path]._modules[name]


def resize_(
    model: nn.Module, sizes: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor], source: str
) -> None:
    """Give parameters and buffers the shapes of `tensors`, and attributes the values of `sizes`, in place.

    What was in the tensors that change is lost: the caller fills them.

    Args:
        sizes: path of a module to its attributes, as an export writes them down.
        tensors: by name as in `state_dict`.
        source: what the sizes come from, for errors.

    Errors:
        LoadError: a module or attribute that the model does not have, or a tensor with another number of dimensions, or
            one that is larger than the model's; nothing is changed.
    """
    modules = dict(model.named_modules())
    _check_sizes(model, sizes, source)
    resized = [found for found in _own(model) if found[3] in tensors and tensors[found[3]].shape != found[2].shape]
    _check_shapes(resized, tensors, source)
    made: dict[int, Tensor] = {}
    for module, attribute, own, name in resized:
        if id(own) not in made:
            empty = torch.empty(tensors[name].shape, dtype=own.dtype, device=own.device)
            made[id(own)] = nn.Parameter(empty, own.requires_grad) if isinstance(own, nn.Parameter) else empty
        holder: dict[str, Any] = module._parameters if attribute in module._parameters else module._buffers
        holder[attribute] = made[id(own)]
    for path, attributes in sizes.items():
        for name, value in attributes.items():
            old = getattr(modules[path], name)
            setattr(modules[path], name, type(old)(value) if isinstance(old, tuple) else value)
    for module in modules.values():
        refill_flat_weights_(module)


def _check_sizes(model: nn.Module, sizes: Mapping[str, Mapping[str, Any]], source: str) -> None:
    modules = dict(model.named_modules())
    for path, attributes in sizes.items():
        if path not in modules:
            raise LoadError(
                f"{source} was cut in {path!r}, which {type(model).__name__} has not; {nearest(path, modules)}"
            )
        for name in attributes:
            if not hasattr(modules[path], name):
                raise LoadError(
                    f"{source} has a size {name!r} for {path!r}, a {type(modules[path]).__name__} without it"
                )


def _check_shapes(
    resized: Sequence[tuple[nn.Module, str, Tensor, str]], tensors: Mapping[str, Tensor], source: str
) -> None:
    for _, _, own, name in resized:
        shape = tensors[name].shape
        if len(shape) != own.dim() or any(new > old for new, old in zip(shape, own.shape, strict=True)):
            raise LoadError(
                f"{source} has {name!r} of shape {tuple(shape)}, which is no part of the model's {tuple(own.shape)}: the "
                "model was built with other arguments than the one that was cut"
            )


def _own(model: nn.Module) -> list[tuple[nn.Module, str, Tensor, str]]:
    """Every parameter and buffer with its module, attribute and name, at every place where it stands."""
    return [
        (module, name, tensor, f"{path}.{name}".lstrip("."))
        for path, module in model.named_modules(remove_duplicate=False)
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    ]
