"""A mutator that makes a model's channels searchable first, from the configs of the older library."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from mutorch.channels import (
    DCFFChannelUnit,
    DMCPChannelUnit,
    L1MutableChannelUnit,
    MutableChannelUnit,
    OneShotMutableChannelUnit,
    SequentialMutableChannelUnit,
    SlimmableChannelUnit,
)
from mutorch.channels.analyzer import as_analyzer
from mutorch.errors import ChoiceError, ConfigError, SpaceError, nearest
from mutorch.mutables.base import HELD
from mutorch.space import RandomSource

from .mutator import Kind, Mutator
from .wrappers import unwrap

PARSERS = ("ChannelAnalyzer", "Config", "Predefined")
DEFAULT_PARSE = {"type": "ChannelAnalyzer", "demo_input": (1, 3, 224, 224), "tracer_type": "BackwardTracer"}


class ChannelMutator(Mutator):
    """A `Mutator` that converts a model to dynamic ops, in place, and gives it units of channels (the older pruning API).

    `mutorch.searchable` needs no such conversion and cuts more models; this reads and writes the pruning configs that
    users have. Every unit is a decision, named by the module that makes its channels. Weights stay.

    Args:
        channel_unit_cfg: a class of units or its name, or a dict `{type, default_args, units}`, where `units` maps names to
            `init_args`, `choice` and `channels`, or is a JSON or YAML file that does.
        parse_cfg: where units come from. `type` is `'ChannelAnalyzer'`: the model is observed, on `demo_input`; what
            `units` says of the ones that are found is used. `'Config'`: from `units`, each with its `channels`.
            `'Predefined'`: from the mutables that the model's dynamic ops have. Or an object with `analyze(model)`.
        init_cfg: kept as an attribute.

    Attributes:
        units: the units, in the order of the model.

    Errors:
        ConfigError: a config that means nothing; `prepare_from_supernet` says so too.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))
        >>> mutator = ChannelMutator(parse_cfg={"type": "ChannelAnalyzer", "demo_input": (1, 3, 4, 4)})
        >>> mutator.prepare_from_supernet(model)
        >>> mutator.set_choices({"0_(0, 8)_8": 6})
        >>> mutator.current_choices, model[2].in_channels
        ({'0_(0, 8)_8': 6}, 6)
    """

    def __class_getitem__(cls, unit: Any) -> type[ChannelMutator]:
        """The same class; `ChannelMutator[SomeUnit]` is what the documents annotate with."""
        return cls

    def __init__(
        self,
        channel_unit_cfg: type[MutableChannelUnit] | str | Mapping[str, Any] = SequentialMutableChannelUnit,
        parse_cfg: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__()
        self.init_cfg = init_cfg
        self.parse_cfg = copy.deepcopy(DEFAULT_PARSE) if parse_cfg is None else parse_cfg
        config: Mapping[str, Any] = (
            channel_unit_cfg if isinstance(channel_unit_cfg, Mapping) else {"type": channel_unit_cfg}
        )
        self.unit_class = _unit_class(config.get("type", SequentialMutableChannelUnit))
        self.unit_default_args: dict[str, Any] = copy.deepcopy(dict(config.get("default_args", {})))
        self.units_cfg = _units(config.get("units", {}))
        self.units: list[MutableChannelUnit] = []
        if isinstance(self.parse_cfg, Mapping):
            kind = self.parse_cfg.get("type", "ChannelAnalyzer")
            if _name(kind) not in PARSERS:
                raise SpaceError(f"parse_cfg has no type {_name(kind)!r}; {nearest(_name(kind), PARSERS)}")
        elif not hasattr(self.parse_cfg, "analyze"):
            raise ConfigError(f"parse_cfg is a dict or has a method analyze(model), got {self.parse_cfg!r}")

    # ---- units -------------------------------------------------------------------------------------------------------

    def prepare_from_supernet(self, model: nn.Module) -> None:
        """Find the units of `model` and convert it, in place; then as in `Mutator`.

        Errors:
            ConfigError: units without channels, where they come from the config (also `ValueError`).
            SpaceError: no units; units of the config that the model does not have.
        """
        model = unwrap(model)
        held = [unit for unit in vars(model).get(HELD, ()) if unit in self.units]
        if not held:
            self.units = self._found(model)
            for unit in self.units:
                chosen = unit.current_choice
                unit.prepare_for_pruning(model)
                if "choice" in self.units_cfg.get(unit.name, {}):
                    unit.current_choice = chosen
            model.__dict__[HELD] = [*vars(model).get(HELD, ()), *self.mutable_units]
        super().prepare_from_supernet(model)

    def _found(self, model: nn.Module) -> list[MutableChannelUnit]:
        kind = _name(self.parse_cfg.get("type", "ChannelAnalyzer")) if isinstance(self.parse_cfg, Mapping) else ""
        if kind == "Predefined":
            return list(self.unit_class.init_from_predefined_model(model))
        if kind == "Config":
            without = [name for name, config in self.units_cfg.items() if "channels" not in config]
            if without:
                raise ConfigError(
                    f"unit {without[0]!r} of the config has no channels; parse_cfg type 'Config' needs them"
                )
            found = self.units_cfg
        else:
            found = as_analyzer(self.parse_cfg).analyze(model)
            unknown = [name for name in self.units_cfg if name not in found]
            if unknown:
                raise SpaceError(f"the config names {unknown[0]!r}, which is no unit; {nearest(unknown[0], found)}")
        return [self._unit(model, name, config) for name, config in found.items()]

    def _unit(self, model: nn.Module, name: str, config: Mapping[str, Any]) -> MutableChannelUnit:
        given = self.units_cfg.get(name, {})
        number = {"num_channels": config.get("init_args", {}).get("num_channels")}
        number = {key: value for key, value in number.items() if value is not None}
        own = {**config, **given, "init_args": {**self.unit_default_args, **number, **given.get("init_args", {})}}
        if "choice" not in given:
            own.pop("choice", None)
        unit = self.unit_class.init_from_cfg(model, own)
        unit.name = name
        return unit

    @property
    def mutable_units(self) -> list[MutableChannelUnit]:
        """The units whose channels can be removed."""
        return [unit for unit in self.units if unit.is_mutable]

    @property
    def name2unit(self) -> dict[str, MutableChannelUnit]:
        """The units by name."""
        return {unit.name: unit for unit in self.units}

    def fix_channel_mutables(self) -> None:
        """Make the current choice of every unit final."""
        for unit in self.units:
            if not unit.is_fixed:
                unit.fix_chosen()

    # ---- choices -----------------------------------------------------------------------------------------------------

    @property
    def choice_template(self) -> dict[str, Any]:
        """The current choice of every unit that can be cut."""
        return {unit.name: unit.current_choice for unit in self.mutable_units}

    def sample_choices(self, kind: Kind = "random", *, rng: RandomSource | None = None) -> dict[str, Any]:
        """An architecture: see `Mutator`; a random one without `rng` cannot be repeated.

        Errors:
            ChoiceError: another kind (also `AssertionError`).
        """
        if kind not in ("random", "max", "min", "default"):
            raise ChoiceError(f"no kind {kind!r}; {nearest(kind, ('random', 'max', 'min', 'default'))}")
        if kind == "random" and rng is None:
            return {unit.name: unit.sample_choice() for unit in self.mutable_units}
        return super().sample_choices(kind, rng=rng)

    # ---- as data -----------------------------------------------------------------------------------------------------

    def config_template(
        self, only_mutable_units: bool = False, with_unit_init_args: bool = False, with_channels: bool = False
    ) -> dict[str, Any]:
        """The mutator as plain data with the current choices; `ChannelMutator` takes its parts back.

        Args:
            only_mutable_units: leave out units that cannot be cut.
            with_unit_init_args, with_channels: see `ChannelUnit.config_template`. With channels, the config says where units
                are, and no model needs to be observed again.
        """
        units = self.mutable_units if only_mutable_units else self.units
        parse: Any = self.parse_cfg
        if with_channels:
            parse = {"type": "Config"}
        elif isinstance(parse, Mapping):
            parse = {name: _plain(value) for name, value in parse.items()}
        else:
            parse = {"type": type(parse).__name__}
        return {
            "type": type(self).__name__,
            "channel_unit_cfg": {
                "type": _name(self.unit_class),
                "default_args": copy.deepcopy(self.unit_default_args),
                "units": {unit.name: unit.config_template(with_unit_init_args, with_channels) for unit in units},
            },
            "parse_cfg": parse,
        }


_UNITS: tuple[type[MutableChannelUnit], ...] = (
    SequentialMutableChannelUnit,
    OneShotMutableChannelUnit,
    SlimmableChannelUnit,
    L1MutableChannelUnit,
    DCFFChannelUnit,
    DMCPChannelUnit,
)


def _unit_class(given: Any) -> type[MutableChannelUnit]:
    known = {kind.__name__: kind for kind in _UNITS}
    if isinstance(given, type) and issubclass(given, MutableChannelUnit):
        return given
    name = str(given).rpartition(".")[2]
    if name not in known:
        raise ConfigError(f"no unit class {given!r}; {nearest(name, known)}")
    return known[name]


def _units(given: Any) -> dict[str, dict[str, Any]]:
    if isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():
            raise ConfigError(f"no file {path} of units")
        text = path.read_text(encoding="utf-8")
        given = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    if not isinstance(given, Mapping):
        raise ConfigError(f"units are a dict from name to config, or a file, got {given!r}")
    return copy.deepcopy(dict(given))


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition(".")[2]


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, Mapping):
        return {name: _plain(held) for name, held in value.items()}
    return list(value) if isinstance(value, tuple) else value
