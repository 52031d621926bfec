"""What a run of the recipe `detnas` is made of, read from a config and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mutorch.errors import ConfigError

from .settings import Settings, Training, check_keys, filled


@dataclass(frozen=True, slots=True)
class Pretraining:
    """How a backbone learns to classify before it learns to detect.

    Attributes:
        data: a config for `DATASETS`, of pairs of images and labels.
        head: a config for `MODELS`, of what makes logits of the backbone's features; thrown away afterwards.
        supernet: the training of the supernet's backbone.
        alone: the training of the backbone of each subnet that is trained alone.
    """

    data: Mapping[str, Any]
    head: Mapping[str, Any]
    supernet: Training = field(default_factory=lambda: Training(steps=1000))
    alone: Training = field(default_factory=Training)


@dataclass(frozen=True, slots=True)
class DetNASSettings(Settings):
    """`Settings` of a detection task.

    Attributes:
        pretrain: unless given, everything is trained on the detection task from scratch.
    """

    pretrain: Pretraining | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "DetNASSettings":
        """The settings that a config file describes; the config is not changed.

        Errors:
            ConfigError: as for `Settings`.

        Example:
            >>> config = {"model": {"type": "DenseDetector"}, "data": {"type": "DetectionDigits"}}
            >>> head = {"type": "LinearClsHead", "num_classes": 10, "in_channels": 32}
            >>> config["pretrain"] = {"data": {"type": "ClutteredDigits"}, "head": head, "alone": {"steps": 50}}
            >>> settings = DetNASSettings.from_config(config)
            >>> settings.pretrain.supernet.steps, settings.pretrain.alone.steps
            (1000, 50)
        """
        rest = {**config}
        given = rest.pop("pretrain", None)
        base = Settings.from_config(rest)
        return cls(
            **{f.name: getattr(base, f.name) for f in fields(Settings)},
            pretrain=None if given is None else _pretraining(given),
        )


def _pretraining(given: Any) -> Pretraining:
    if not isinstance(given, Mapping):
        raise ConfigError(f"'pretrain' must be a dict, got {type(given).__name__}")
    check_keys(given, [f.name for f in fields(Pretraining)], "'pretrain'")
    for key in ("data", "head"):
        if not isinstance(given.get(key), Mapping):
            raise ConfigError(f"'pretrain' needs {key!r}, a dict with `type`, got {given.get(key)!r}")
    base = Pretraining(given["data"], given["head"])
    return Pretraining(
        given["data"],
        given["head"],
        filled(base.supernet, given.get("supernet", {}), "pretrain.supernet"),
        filled(base.alone, given.get("alone", {}), "pretrain.alone"),
    )
