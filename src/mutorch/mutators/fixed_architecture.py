"""One architecture for good, from a file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ArchitectureKeyError, LoadError, nearest
from mutorch.mutables import LayerChoice

from .mask_format import decode, missing_and_unexpected
from .mask_mutator import MaskMutator


class FixedArchitecture(MaskMutator):
    """Decides as an architecture says; see `apply_fixed_architecture`.

    Args:
        model: see `BaseMutator`.
        fixed_arc: key to choice, in any of the forms of `decode`.
        strict: whether keys that the model does not have are an error; else they are left out.

    Errors:
        ArchitectureKeyError: unexpected or missing keys (also `RuntimeError`).
        ChoiceError: a candidate that there is not (also `ValueError`).
    """

    def __init__(self, model: nn.Module, fixed_arc: Mapping[str, Any], strict: bool = True) -> None:
        super().__init__(model)
        try:
            self._masks = self._decoded(fixed_arc, strict)
        except Exception:
            self.unbind()
            raise
        self._renamed: dict[str, str] = {}
        self._dropped: list[str] = []

    def sample_search(self) -> dict[str, Tensor]:
        return dict(self._masks)

    def sample_final(self) -> dict[str, Tensor]:
        return dict(self._masks)

    def replace_layer_choice(self) -> None:
        """Put the chosen candidate in the place of each `LayerChoice` that takes exactly one, with weight 1.

        All references to the choice are replaced. One that takes several, gives its mask, or is the whole model, stays; what
        its mask leaves out for good (`False`, not the weight 0.0) is removed. `state_dict` keys change: see `carry_over`.
        """
        places = [
            (f"{path}.{name}".lstrip("."), parent, name, child)
            for path, parent in self.model.named_modules(remove_duplicate=False)
            for name, child in parent._modules.items()
            if isinstance(child, LayerChoice)
        ]
        for path, parent, name, child in places:
            parent._modules[name] = self._replacement(child, path)
        if isinstance(self.model, LayerChoice):
            self._without_unused(self.model, "")

    def carry_over(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A `state_dict` of the model before `replace_layer_choice` as the model reads it now: same weights, new keys."""
        found: dict[str, Tensor] = {}
        for key, value in state.items():
            if any(key.startswith(f"{prefix}.") for prefix in self._dropped):
                continue
            for before in sorted(
                self._renamed, key=len, reverse=True
            ):  # what is inside first: paths are those from before
                if key.startswith(f"{before}."):
                    key = self._renamed[before] + key.removeprefix(before)
            found[key] = value
        return found

    def _replacement(self, choice: LayerChoice, path: str) -> nn.Module:
        mask = self._masks[str(choice.key)]
        taken = mask.nonzero().flatten().tolist()
        if len(taken) != 1 or mask[taken[0]] != 1 or choice.return_mask or choice.reduction == "none":
            return self._without_unused(choice, f"{path}.")
        name = choice.names[taken[0]]
        self._dropped += [f"{path}.{choice._children[other]}" for other in choice.names if other != name]
        inside = f"{path}.{choice._children[name]}"
        self._renamed[inside] = path
        module: nn.Module = choice[name]
        return self._replacement(module, inside) if isinstance(module, LayerChoice) else module

    def _without_unused(self, choice: LayerChoice, prefix: str) -> LayerChoice:
        mask = self._masks[str(choice.key)]
        if mask.dtype == torch.bool:
            gone = [name for number, name in enumerate(choice.names) if not mask[number]]
            self._dropped += [f"{prefix}{choice._children[name]}" for name in gone]
            choice.drop(gone)
        return choice

    def _decoded(self, fixed_arc: Mapping[str, Any], strict: bool) -> dict[str, Tensor]:
        choosers = {str(mutable.key): mutable for mutable in self.choosers}
        missing, unexpected = missing_and_unexpected(fixed_arc, list(choosers))
        if unexpected and strict:
            raise ArchitectureKeyError(
                f"the architecture decides {unexpected}, which the model does not have; expected {list(choosers)}; "
                f"{nearest(unexpected[0], choosers)}"
            )
        if missing:
            raise ArchitectureKeyError(
                f"the architecture leaves out {missing}; expected {list(choosers)}, got {list(fixed_arc)}"
            )
        return {key: decode(mutable, fixed_arc[key]) for key, mutable in choosers.items()}


def apply_fixed_architecture(
    model: nn.Module, fixed_arc: Mapping[str, Any] | str | os.PathLike[str], strict: bool = True
) -> FixedArchitecture:
    """Make `model` compute one architecture, in place: what `MaskMutator.export` gave, as a dict or a JSON file.

    `mutorch.export` makes a new plain model instead, and leaves the supernet as it is.

    Args:
        fixed_arc, strict: see `FixedArchitecture`.

    Returns:
        The mutator that decides what is left of the choices.

    Errors:
        LoadError: no such file, or no JSON object in it.
        BindError, ArchitectureKeyError, ChoiceError: see `FixedArchitecture`. The model is as before then.

    Example:
        >>> net = nn.Sequential(LayerChoice({"tanh": nn.Tanh(), "relu": nn.ReLU()}, key="act"))
        >>> _ = apply_fixed_architecture(net, {"act": "relu"})
        >>> net
        Sequential(
          (0): ReLU()
        )
    """
    if not isinstance(fixed_arc, Mapping):
        fixed_arc = _read(Path(fixed_arc))
    mutator = FixedArchitecture(model, fixed_arc, strict)
    mutator.reset()
    mutator.replace_layer_choice()
    return mutator


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError(f"no architecture can be read from {path}: {error}") from error
    if not isinstance(found, dict):
        raise LoadError(f"{path} must hold a JSON object from key to choice, got {type(found).__name__}")
    return found
