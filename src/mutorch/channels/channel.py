"""Channels of one side of one module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mutorch.errors import ConfigError
from mutorch.ops import DynamicOp

PLACEHOLDERS = ("input_placeholder", "output_placeholder")


class Channel:
    """A range of the channels that a module makes, or that it takes.

    Attributes:
        name: the path of the module.
        module: the module; `None` where only the name is known.
        index: the range, `(start, end)`.
        node: free for whoever found it.
        is_output_channel: whether the module makes them.

    Example:
        >>> Channel("stem", nn.Conv2d(3, 8, 1), (0, 8))
        Channel('stem', (0, 8), output)
    """

    def __init__(
        self,
        name: str,
        module: nn.Module | None,
        index: tuple[int, int],
        node: Any = None,
        is_output_channel: bool = True,
    ) -> None:
        self.name = name
        self.module = module
        self.index = (int(index[0]), int(index[1]))
        self.node = node
        self.is_output_channel = is_output_channel
        if not 0 <= self.start < self.end:
            raise ConfigError(f"channels of {name!r} are a range (start, end) with 0 <= start < end, got {index!r}")

    @classmethod
    def init_from_cfg(cls, model: nn.Module | None, config: Mapping[str, Any]) -> Channel:
        """Channels from what `config_template` gives; without the model, or where it has no such module, by name only."""
        missing = {"name", "start", "end"} - set(config)
        if missing:
            raise ConfigError(f"a channel needs {', '.join(sorted(missing))}, got {sorted(config)}")
        module = None if model is None else dict(model.named_modules()).get(config["name"])
        index = (config["start"], config["end"])
        return cls(config["name"], module, index, is_output_channel=config.get("is_output_channel", True))

    @property
    def start(self) -> int:
        """The first channel."""
        return self.index[0]

    @property
    def end(self) -> int:
        """One past the last."""
        return self.index[1]

    @property
    def num_channels(self) -> int:
        """How many there are."""
        return self.end - self.start

    @property
    def is_mutable(self) -> bool:
        """Whether they can be removed: the module is dynamic, or has no parameters of its own."""
        if self.module is None:
            return self.name not in PLACEHOLDERS
        return isinstance(self.module, DynamicOp) or not any(True for _ in self.module.parameters())

    def config_template(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "name": self.name,
            "start": self.start,
            "end": self.end,
            "is_output_channel": self.is_output_channel,
        }

    def _key(self) -> tuple[Any, ...]:
        return self.name, id(self.module), self.index, self.is_output_channel, self.node

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Channel) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.name, self.index, self.is_output_channel))

    def __repr__(self) -> str:
        return f"Channel({self.name!r}, {self.index}, {'output' if self.is_output_channel else 'input'})"
