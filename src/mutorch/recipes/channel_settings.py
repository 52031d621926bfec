"""What the configs of recipes for channels have in common."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from mutorch.errors import ConfigError

from .settings import check_keys, checked


def check_model_and_data(config: Mapping[str, Any], settings: type) -> dict[str, Any]:
    """A copy of the config without what the command line reads; its keys are those of the settings.

    Errors:
        ConfigError: an unknown key, or no model or data.
    """
    known = {key: value for key, value in config.items() if key not in ("recipe", "output", "custom_imports")}
    check_keys(known, [f.name for f in fields(settings)], "the config")
    for key in ("model", "data"):
        if not isinstance(known.get(key), Mapping):
            raise ConfigError(f"a config needs {key!r}, a dict with `type`; this one has {known.get(key)!r}")
    return known


def read(known: Mapping[str, Any], *, globs: Iterable[str], optional: Iterable[str]) -> dict[str, Any]:
    """The values, checked; a single glob becomes a tuple of one, and what is null and `optional` is left out."""
    values = {key: value for key, value in known.items() if value is not None or key not in optional}
    for key in globs:
        if key in values:
            given = values[key]
            values[key] = (given,) if isinstance(given, str) else tuple(given or ())
    for key in ("divisor", "every"):
        if key in values:
            values[key] = whole(key, values[key])
    if "min_ratio" in values:
        share("min_ratio", values["min_ratio"])
    return checked(values, "")


def whole(name: str, value: Any) -> int:
    """The value as an int.

    Errors:
        ConfigError: no whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def share(name: str, value: Any) -> None:
    """Nothing, if the value is a share.

    Errors:
        ConfigError: no number above 0 and up to 1.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ConfigError(f"{name} must be a number above 0 and at most 1, got {value!r}")
