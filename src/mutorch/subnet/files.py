"""Subnets as files: tensors and a JSON record, readable without mutorch and without running code."""

import copy
import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mutorch.errors import ExportError, LoadError, MutorchError
from mutorch.mutators import Mutator, find_places
from mutorch.utils import whole_file

from .export import export, record_of
from .resize import remove_, resize_

FORMAT = 1
KEY = "mutorch"


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    architecture: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Path:
    """Write the tensors of a plain model and the record of where it comes from; returns the path.

    `.safetensors` files hold the record as metadata; `.pt` files are a dict that `torch.load(weights_only=True)` reads.
    Tensors that share memory are written once. The file appears whole or not at all.

    Args:
        model: what `export` gave, trained further or not; any model without mutables.
        architecture: needed only for a model that `export` did not make.
        metrics: numbers to keep with it, such as its accuracy.

    Errors:
        ExportError: a model that still holds mutables, another suffix, or state that is no tensor.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pt"):
        raise ExportError(f"a subnet is saved as .safetensors or .pt, got {path.name!r}")
    places = [place for place in find_places(model) if place.mutable.is_decision]  # a scope is a module like others
    if places:
        raise ExportError(f"the model still holds mutables, first {places[0].path!r}; save export(model, architecture)")
    tensors, tied = _tensors(model)
    record = {
        "format": FORMAT,
        **(record_of(model) or {}),
        **({"architecture": dict(architecture)} if architecture is not None else {}),
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "tied": tied,
        "metrics": {name: float(value) for name, value in (metrics or {}).items()},
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
    }
    with whole_file(path) as partial:
        if path.suffix == ".pt":
            torch.save({"tensors": tensors, KEY: json.dumps(record)}, partial)
        else:
            save_file(tensors, partial, metadata={KEY: json.dumps(record), "format": "pt"})
    return path


def load(path: str | os.PathLike[str], model: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    """The saved model, rebuilt: `model` builds what it was exported from (or what it is), the file fills it.

    Args:
        path: what `save` wrote.
        model: the class or function that builds the supernet, or a plain model of the same shape, or the original model
            that `searchable` was given, whose tensors are cut; or such a model, which is left as it is.

    Errors:
        LoadError: not a file of `save`, a space that the architecture does not fit, or tensors that do not fit; the
            first one that differs is named with both shapes.

    Example:
        >>> import tempfile
        >>> from mutorch.mutables import OneShotMutableOP
        >>> build = lambda: nn.Sequential(OneShotMutableOP({"a": nn.Linear(2, 2), "b": nn.Identity()}))
        >>> path = save(export(build(), {"0": "a"}), tempfile.mkdtemp() + "/net.safetensors")
        >>> load(path, build)
        Sequential(
          (0): Linear(in_features=2, out_features=2, bias=True)
        )
    """
    record, tensors = _read(Path(path))
    tensors |= {name: tensors[source] for name, source in record.get("tied", {}).items()}
    built = model if isinstance(model, nn.Module) else model()
    if any(place.mutable.is_decision for place in find_places(built)):
        if "architecture" not in record:
            raise LoadError(f"{path} has no architecture, but the model has decisions; give save the architecture")
        try:
            plain = _exported(built, record)
        except MutorchError as error:
            raise LoadError(f"{path} does not fit {type(built).__name__}: {error}") from error
    else:
        plain = copy.deepcopy(built) if isinstance(model, nn.Module) else built
        remove_(plain, record.get("removed", {}), str(path))
        if "resized" in record:
            resize_(plain, record["resized"], tensors, str(path))
    _fill(plain, tensors, str(path))
    return plain


def _exported(net: nn.Module, record: Mapping[str, Any]) -> nn.Module:
    if "custom_groups" not in record:
        return export(net, record["architecture"])
    # A mutator decides what is undecided, and what the caller gave stays as it is.
    mutator = Mutator(copy.deepcopy(net), custom_groups=record["custom_groups"])
    return export(mutator.model, record["architecture"], mutator=mutator)


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file says about itself: architecture, fingerprint of the space, metrics, versions."""
    return _read(Path(path))[0]


def _tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state without repetition, contiguous, and which names repeat which."""
    first: dict[tuple[Any, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ExportError(f"the state of {name!r} is a {type(value).__name__}, and only tensors can be saved")
        same = (value.untyped_storage()._cdata, value.storage_offset(), tuple(value.shape), value.stride())
        if value.numel() and same in first:
            tied[name] = first[same]
        else:
            first[same] = name
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    return tensors, tied


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.exists():
        raise LoadError(f"no file {path}")
    try:
        if path.suffix == ".pt":
            content = torch.load(path, map_location="cpu", weights_only=True)
            text, tensors = content[KEY], content["tensors"]
        else:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {})[KEY]
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        record = json.loads(text)
    except Exception as error:
        raise LoadError(f"{path} is not a file that mutorch.save wrote: {type(error).__name__}: {error}") from error
    if record.get("format") != FORMAT:
        raise LoadError(f"{path} has format {record.get('format')!r}; this version reads format {FORMAT}")
    return record, tensors


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], path: str) -> None:
    own = model.state_dict()
    for name, tensor in own.items():
        if name in tensors and tensors[name].shape != tensor.shape:
            raise LoadError(
                f"{path} has {name!r} of shape {tuple(tensors[name].shape)}, the model {tuple(tensor.shape)}: it was "
                "built with other arguments than the one that was saved"
            )
    missing = [name for name in own if name not in tensors]
    unknown = [name for name in tensors if name not in own]
    if missing or unknown:
        lacks = f"lacks {len(missing)} tensors of the model, first {missing[0]!r}" if missing else ""
        holds = f"holds {len(unknown)} that the model has not, first {unknown[0]!r}" if unknown else ""
        raise LoadError(f"{path} {' and '.join(filter(None, (lacks, holds)))}")
    _cast_(model, tensors)
    model.load_state_dict(dict(tensors))


def _cast_(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give parameters and buffers the types of the file: a model saved in half precision loads in half precision."""
    for path, module in model.named_modules(remove_duplicate=False):
        for name, own in (*module._parameters.items(), *module._buffers.items()):
            saved = tensors.get(f"{path}.{name}".lstrip("."))
            if own is not None and saved is not None and own.dtype != saved.dtype:
                own.data = own.data.to(saved.dtype)
