"""What a differentiable search is made of, read from a config and checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mutorch.errors import ConfigError

from .methods import as_method
from .settings import Training, check_keys, checked, filled


@dataclass(frozen=True, slots=True)
class GradientSearching:
    """How the supernet is trained and its architecture learned; see `search_by_gradient`.

    Attributes:
        path_steps: the budget: forwards and backwards of one path.
        batch_size, lr, weight_decay: of the weights' training.
        max_skips, stop_when_sharp, skip_dropout: guards against collapse.
        cost_weight: what expected multiply-adds add to the loss.
        recompute: whether candidates compute again in backward, for less memory.
    """

    path_steps: int = 3000
    batch_size: int = 64
    lr: float = 0.1
    weight_decay: float = 5e-4
    max_skips: int | None = None
    stop_when_sharp: bool = False
    skip_dropout: float = 0.0
    cost_weight: float = 0.0
    recompute: bool = False


@dataclass(frozen=True, slots=True)
class GradientSettings:
    """A whole run.

    Attributes:
        model, data: configs for `MODELS` and `DATASETS`; the model's blocks are learned by gradient, such as `DiffMutableOP`.
        method: a name of `METHODS`, or a dict with `type` and what is different.
        search: the search.
        retrain: the training of each subnet that is trained alone.
        num_random: how many random subnets are trained alone as the baseline, one at least; as many as the search's
            path-steps would pay for unless given.
        seed: decides everything that is random.
        threads: how many CPU threads torch computes with; its own choice unless given.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    method: str | Mapping[str, Any] = "samples"
    search: GradientSearching = field(default_factory=GradientSearching)
    retrain: Training = field(default_factory=Training)
    num_random: int | None = None
    seed: int = 0
    threads: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "GradientSettings":
        """The settings that a config file describes; the config is not changed.

        Errors:
            ConfigError: unknown or missing keys, with the nearest names; values of another type or out of range.

        Example:
            >>> settings = GradientSettings.from_config({"model": {"type": "ChainNet"}, "data": {"type": "ClutteredDigits"},
            ...     "method": "darts", "search": {"path_steps": 600}})
            >>> settings.search.path_steps, settings.search.batch_size
            (600, 64)
        """
        known = {key: value for key, value in config.items() if key not in ("recipe", "output", "custom_imports")}
        check_keys(known, [f.name for f in fields(cls)], "the config")
        for key in ("model", "data"):
            if not isinstance(known.get(key), Mapping):
                raise ConfigError(f"a config needs {key!r}, a dict with `type`; this one has {known.get(key)!r}")
        as_method(known.get("method", "samples"))
        for key, base in (("search", GradientSearching()), ("retrain", Training())):
            if key in known:
                known[key] = filled(base, known[key], key)
        if "search" in known:
            _check(known["search"])
        if known.get("num_random") == 0:
            raise ConfigError("num_random must be at least 1: a search is always shown beside a random architecture")
        optional = {k: v for k, v in known.items() if v is not None or k not in ("num_random", "threads")}
        return cls(**checked(optional, ""))


def _check(search: GradientSearching) -> None:
    """What `checked` does not know."""
    for name in ("stop_when_sharp", "recompute"):
        if not isinstance(getattr(search, name), bool):
            raise ConfigError(f"search: {name} must be true or false, got {getattr(search, name)!r}")
    skips = search.max_skips
    if skips is not None and (isinstance(skips, bool) or not isinstance(skips, int) or skips < 0):
        raise ConfigError(f"search: max_skips must be a whole number of at least 0, got {skips!r}")
    for name, most in (("skip_dropout", 1.0), ("cost_weight", math.inf)):
        value = getattr(search, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < most:
            limits = "at least 0" if most == math.inf else "at least 0 and below 1"
            raise ConfigError(f"search: {name} must be a number {limits}, got {value!r}")
    steps = search.path_steps
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"search: path_steps must be a whole number of at least 1, got {steps!r}")
