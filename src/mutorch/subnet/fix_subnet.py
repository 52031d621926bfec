"""Subnets as the older libraries write them: one entry per mutable, fixed in place (seed 001).

`mutorch.export` and `mutorch.save` are the documented route; these read and write the files that users already have.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from torch import nn

from mutorch.errors import ChoiceError, ConfigError, FixedError, LoadError, SpaceError, nearest
from mutorch.mutables import DumpChosen, MutableModule
from mutorch.mutables.base import HELD
from mutorch.mutators import ChannelMutator, Place, find_places
from mutorch.ops import DynamicOp, to_static_

from .export import export

FixMutable = dict[str, DumpChosen]
ValidFixMutable = str | os.PathLike[str] | Mapping[str, Any]
"""A file (`.yaml`, `.yml`, `.json`), or a dict from alias or path to `DumpChosen`, `{'chosen': choice}` or a choice."""


class PrefixError(ConfigError, RuntimeError):
    """Both prefixes given."""


class MissingEntryError(LoadError, KeyError):
    """A mutable that the subnet says nothing of."""


class MissingAliasError(MissingEntryError, AssertionError):
    """A mutable whose alias the subnet says nothing of."""


def export_fix_subnet(
    model: nn.Module,
    export_subnet_mode: str = "mutable",
    slice_weight: bool = False,
    export_channel: bool = False,
) -> tuple[dict[str, Any], nn.Module | None]:
    """The current choices of a model, by alias or path, for `load_fix_subnet`; and the plain model if asked for.

    Args:
        export_subnet_mode: `'mutable'`: what each mutable dumps. `'mutator'`: what the model's `mutator` attribute gives
            as its `config_template` (channels).
        slice_weight: whether the second result is the exported plain model instead of `None`.
        export_channel: with `'mutator'`, whether the template lists channels.

    Errors:
        ConfigError: another mode, or `'mutator'` on a model without such a mutator (also `ValueError`).
        ChoiceError: a mutable without a choice (also `AssertionError`).
    """
    if export_subnet_mode == "mutable":
        subnet = {place.name: _dumped(place) for place in find_places(model)}
    elif export_subnet_mode == "mutator":
        template = getattr(getattr(model, "mutator", None), "config_template", None)
        if template is None:
            raise ConfigError("mode 'mutator' needs a model whose attribute `mutator` has a config_template")
        subnet = template(with_channels=export_channel, with_unit_init_args=True)
    else:
        raise ConfigError(f"no mode {export_subnet_mode!r}; {nearest(export_subnet_mode, ('mutable', 'mutator'))}")
    return subnet, export(model) if slice_weight else None


def load_fix_subnet(
    model: nn.Module,
    subnet_dict: ValidFixMutable,
    load_subnet_mode: str = "mutable",
    prefix: str = "",
    extra_prefix: str = "",
) -> None:
    """Fix every mutable of `model` to what the subnet says, for good and in place. The subnet is not changed.

    Everything is checked first: a subnet that does not fit changes nothing. Fixed mutables are skipped, as are those
    inside candidates that the subnet does not choose; afterwards every dynamic op is its static one, and every other module
    with a `to_static_op` is replaced by what that gives.

    Args:
        load_subnet_mode: `'mutable'`: an entry for each mutable. `'mutator'`: the template of a `ChannelMutator`; the plain
            model that it was made from is cut in place.
        prefix: removed from the front of module paths before they are looked up.
        extra_prefix: put in front of them.

    Errors:
        PrefixError: both prefixes (also `RuntimeError`).
        TypeError: a subnet that is neither file nor dict.
        ConfigError: another mode (also `ValueError`).
        MissingAliasError: a mutable's alias is not in the subnet (also `AssertionError`).
        MissingEntryError: a mutable's path is not in the subnet (also `RuntimeError`).
        ChoiceError: a choice that its mutable does not have.
    """
    if prefix and extra_prefix:
        raise PrefixError(f"give prefix or extra_prefix, not both: {prefix!r}, {extra_prefix!r}")
    subnet = _read(subnet_dict)
    if load_subnet_mode not in ("mutable", "mutator"):
        raise ConfigError(f"no mode {load_subnet_mode!r}; {nearest(load_subnet_mode, ('mutable', 'mutator'))}")
    if load_subnet_mode == "mutator":
        if "channel_unit_cfg" not in subnet:
            raise ConfigError(f"mode 'mutator' needs 'channel_unit_cfg' in the subnet, which has {sorted(subnet)}")
        _load_channels(model, subnet)
        return
    if hasattr(model, "to_static_op"):
        raise FixedError(f"{type(model).__name__} is itself a dynamic op; call its to_static_op instead")
    planned: dict[str, tuple[Place, Any]] = {}
    for place in find_places(model):
        gone = any(path in planned and not _keeps(*planned[path], candidate) for path, candidate in place.inside)
        if not place.mutable.is_fixed and not gone:
            planned[place.path] = place, _chosen(subnet, place, prefix, extra_prefix)
    for place, chosen in planned.values():
        if not place.mutable.is_fixed:  # shared: fixed a moment ago
            place.mutable.assign(chosen)
            place.mutable.fix_chosen(chosen)
    to_static_(model)
    _to_static(model)


def _load_channels(model: nn.Module, subnet: Mapping[str, Any]) -> None:
    """Cut a model to what a template of a `ChannelMutator` says."""
    mutator = ChannelMutator(subnet["channel_unit_cfg"], subnet.get("parse_cfg"))
    mutator.prepare_from_supernet(model)
    mutator.fix_channel_mutables()
    to_static_(model)
    held = [unit for unit in vars(model).pop(HELD) if unit not in mutator.units]
    if held:
        model.__dict__[HELD] = held


def convert_fix_subnet(fix_subnet: Mapping[str, DumpChosen]) -> dict[str, dict[str, Any]]:
    """The subnet with plain values, `{key: {'chosen': choice}}`, as YAML and JSON can hold it.

    Errors:
        ChoiceError: a value that is no `DumpChosen` (also `AssertionError`).

    Example:
        >>> convert_fix_subnet({"block": DumpChosen("conv3", {"all_choices": ["conv3"]})})
        {'block': {'chosen': 'conv3'}}
    """
    for name, value in fix_subnet.items():
        if not isinstance(value, DumpChosen):
            raise ChoiceError(f"entry {name!r} must be a DumpChosen, got {type(value).__name__}")
    return {name: {"chosen": value.chosen} for name, value in fix_subnet.items()}


def _dumped(place: Place) -> DumpChosen:
    dumped: object = place.mutable.dump_chosen()
    return dumped if isinstance(dumped, DumpChosen) else DumpChosen(dumped)  # the guide's mutables dump the bare choice


def _chosen(subnet: Mapping[str, Any], place: Place, prefix: str, extra_prefix: str) -> Any:
    name = place.name if place.mutable.alias else f"{extra_prefix}{place.name.removeprefix(prefix)}"
    if name not in subnet:
        error = MissingAliasError if place.mutable.alias else MissingEntryError
        raise error(f"the subnet has no entry {name!r} for the mutable at {place.path!r}; {nearest(name, subnet)}")
    entry = subnet[name]
    if isinstance(entry, Mapping) and "chosen" not in entry:
        raise SpaceError(f"entry {name!r} of the subnet has no 'chosen', only {sorted(entry)}")
    chosen = entry["chosen"] if isinstance(entry, Mapping) else entry.chosen if isinstance(entry, DumpChosen) else entry
    if isinstance(chosen, list) and len(chosen) == 1 and place.mutable.allows(chosen[0]):
        return chosen[0]  # a mixed operation's, in files of the older libraries
    if not place.mutable.allows(chosen):
        allowed = place.mutable.decision_choices
        raise ChoiceError(f"mutable {place.name!r} has no choice {chosen!r}; {nearest(chosen, allowed)}")
    return chosen


def _keeps(place: Place, chosen: Any, candidate: str) -> bool:
    return isinstance(place.mutable, MutableModule) and place.mutable.keeps(chosen, candidate)


def _read(subnet: ValidFixMutable) -> Mapping[str, Any]:
    if isinstance(subnet, Mapping):
        return subnet
    if not isinstance(subnet, str | os.PathLike):
        raise TypeError(f"a subnet is a dict or a file, got {type(subnet).__name__}")
    path = Path(subnet)
    if not path.is_file():
        raise LoadError(f"no file {path}")
    text = path.read_text(encoding="utf-8")
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise LoadError(f"a subnet file is .yaml or .json (pickles can run code and are not read), got {path.name!r}")
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise LoadError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, Mapping):
        raise LoadError(f"{path} holds a {type(content).__name__}, not a dict from mutable to choice")
    return content


def _to_static(module: nn.Module) -> None:
    for name, child in module.named_children():
        if hasattr(child, "to_static_op") and not isinstance(child, DynamicOp):
            setattr(module, name, cast("Any", child).to_static_op())
        else:
            _to_static(child)
