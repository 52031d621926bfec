"""From what a user writes as candidates to an `nn.ModuleDict` of built modules."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mutorch.errors import ChoiceError, ConfigError
from mutorch.registry import MODELS

from .module import MutableModule


def build_candidates(
    candidates: Mapping[str, nn.Module | Mapping[str, Any]] | nn.ModuleDict,
    module_kwargs: Mapping[str, Any] | None = None,
) -> nn.ModuleDict:
    """The candidates as modules, in the given order. The caller's dicts are not modified.

    Args:
        candidates: a ready `nn.ModuleDict` (kept by reference), or a dict of built modules and configs, mixed at will.
            A config may itself describe a module mutable: candidates nest.
        module_kwargs: added to every config (over what it says); built modules are what they are.

    Errors:
        ChoiceError: no candidates.
        ConfigError: a name that `nn.ModuleDict` cannot hold.
        TypeError: anything else as candidates, or as one of them.
    """
    if not isinstance(candidates, Mapping | nn.ModuleDict):
        raise TypeError(
            "candidates must be an nn.ModuleDict, or a dict from name to a module or a config with `type`; "
            f"got {type(candidates).__name__}"
        )
    if len(candidates) == 0:
        raise ChoiceError("candidates is empty: a mutable needs at least one")
    if isinstance(candidates, nn.ModuleDict):
        return candidates
    built = nn.ModuleDict()
    for name, candidate in candidates.items():
        module = build_candidate(name, candidate, module_kwargs or {})
        try:
            built.add_module(name, module)
        except KeyError as error:
            raise ConfigError(f"candidate name {name!r} cannot be used in an nn.ModuleDict: {error.args[0]}") from None
    return built


def build_candidate(name: str, candidate: object, module_kwargs: Mapping[str, Any]) -> nn.Module:
    """One candidate as a module: itself, or what a config with `type` describes."""
    if not isinstance(name, str):
        raise TypeError(f"candidate names must be strings, got {name!r}")
    if isinstance(candidate, nn.Module):
        return candidate
    if not isinstance(candidate, Mapping):
        raise TypeError(
            f"candidate {name!r} must be an nn.Module or a config with `type`, got {type(candidate).__name__}"
        )
    config = dict(candidate)
    if module_kwargs:
        kind = config.get("type")
        kind = MODELS.find(kind, config.get("_scope_")) if isinstance(kind, str) else kind
        if isinstance(kind, type) and issubclass(kind, MutableModule):
            # A nested mutable hands the arguments on to its own candidates.
            config["module_kwargs"] = {**(config.get("module_kwargs") or {}), **module_kwargs}
        else:
            config.update(module_kwargs)
    module = MODELS.build(config)
    if not isinstance(module, nn.Module):
        raise TypeError(f"candidate {name!r} built a {type(module).__name__}, which is no nn.Module")
    return module
