"""Channels of several modules that belong together."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

from torch import nn

from mutorch.errors import ConfigError, SpaceError

from .channel import Channel


class ChannelUnit(nn.Module):
    """Channels that are kept or removed together: those that some modules make and others take.

    Args:
        num_channels: how many there are.
        kwargs: those of a subclass.

    Attributes:
        output_related: where they are made.
        input_related: where they are taken. What passes channels on, a norm, is in both.

    Example:
        >>> unit = ChannelUnit(8)
        >>> unit.add_output_related(Channel("stem", nn.Conv2d(3, 8, 1), (0, 8)))
        >>> unit.name
        'stem_(0, 8)_8'
    """

    num_channels: int

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_channels = num_channels
        self.output_related: list[Channel] = []
        self.input_related: list[Channel] = []
        self._name: str | None = None

    # ---- where from --------------------------------------------------------------------------------------------------

    @classmethod
    def init_from_cfg(cls, model: nn.Module | None, config: Mapping[str, Any]) -> Self:
        """A unit from what `config_template` gives. `config` is not changed; keys that mean nothing are ignored.

        Errors:
            ConfigError: no `num_channels` under `init_args`.
        """
        init_args = copy.deepcopy(dict(config.get("init_args", {})))
        if "num_channels" not in init_args:
            raise ConfigError(f"a unit needs init_args with num_channels, got {dict(config)}")
        unit = cls(**init_args)
        for side in ("input_related", "output_related"):
            for given in config.get("channels", {}).get(side, ()):
                whole = {"start": 0, "end": unit.num_channels, "is_output_channel": side == "output_related", **given}
                unit._add(Channel.init_from_cfg(model, whole), side)
        return unit

    @classmethod
    def init_from_channel_unit(cls, unit: ChannelUnit, args: Mapping[str, Any] | None = None) -> Self:
        """A unit of this class with the channels of another."""
        made = cls(**{**(args or {}), "num_channels": unit.num_channels})
        made.input_related = unit.input_related
        made.output_related = unit.output_related
        made._name = unit._name
        return made

    @classmethod
    def init_from_channel_analyzer(cls, model: nn.Module, analyzer: Any = None) -> list[Self]:
        """The units of a model, as an analyzer finds them.

        Args:
            analyzer: something with `analyze(model)`, its config as a dict, or `None` for a `ChannelAnalyzer` with its
                defaults.
        """
        from .analyzer import as_analyzer  # noqa: PLC0415  (the analyzer makes searchable models, whose units are these)

        found = as_analyzer(analyzer).analyze(model)
        return [cls.init_from_cfg(model, config) for config in found.values()]

    # ---- channels ----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What the unit is called: by the first module that makes its channels, unless it was given another name."""
        if self._name is not None:
            return self._name
        first = next(iter((*self.output_related, *self.input_related)), None)
        return f"unitx_{self.num_channels}" if first is None else f"{first.name}_{first.index}_{self.num_channels}"

    @name.setter
    def name(self, name: str) -> None:
        self._name = name

    @property
    def channels(self) -> list[Channel]:
        """Those of both sides, made before taken."""
        return [*self.output_related, *self.input_related]

    def add_output_related(self, channel: Channel) -> None:
        """Add channels that a module makes.

        Errors:
            SpaceError: channels that a module takes.
        """
        self._add(channel, "output_related")

    def add_input_related(self, channel: Channel) -> None:
        """Add channels that a module takes.

        Errors:
            SpaceError: channels that a module makes.
        """
        self._add(channel, "input_related")

    def _add(self, channel: Channel, side: str) -> None:
        if channel.is_output_channel != (side == "output_related"):
            raise SpaceError(f"{channel!r} is not {side} of a unit")
        known: list[Channel] = getattr(self, side)
        if channel not in known:
            known.append(channel)

    # ---- as data -----------------------------------------------------------------------------------------------------

    def config_template(self, with_init_args: bool = False, with_channels: bool = False) -> dict[str, Any]:
        """The unit as plain data, which `init_from_cfg` takes back."""
        config: dict[str, Any] = {}
        if with_init_args:
            config["init_args"] = self.init_args()
        if with_channels:
            config["channels"] = {
                side: [channel.config_template() for channel in getattr(self, side)]
                for side in ("input_related", "output_related")
            }
        return config

    def init_args(self) -> dict[str, Any]:
        """The arguments that make such a unit."""
        return {"num_channels": self.num_channels}

    def extra_repr(self) -> str:
        return f"name={self.name!r}, num_channels={self.num_channels}"
