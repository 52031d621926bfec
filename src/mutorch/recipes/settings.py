"""What a run of a recipe is made of, read from a config and checked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from mutorch.errors import ConfigError, nearest
from mutorch.search import AHEAD
from mutorch.search.objectives import Objectives
from mutorch.search.strategies import STRATEGIES
from mutorch.subnet import LatencyRunner

T = TypeVar("T")

_AT_LEAST = {
    "steps": 1,
    "batch_size": 1,
    "num_trials": 1,
    "rounds": 1,
    "child_steps": 1,
    "controller_steps": 1,
    "num_samples": 1,
    "num_candidates": 1,
    "calibration_samples": 1,
    "num_retrained": 1,
    "num_random": 0,
    "threads": 1,
    "workers": 0,
    "ahead": 1,
}
"""Whole numbers, and the least that each may be."""

_OF_TABLE = ("num_samples", "tolerance")

_NOT_NEGATIVE = ("lr", "momentum", "weight_decay", "controller_lr", "entropy_weight", "skip_weight")


@dataclass(frozen=True, slots=True)
class Training:
    """How one model is trained: SGD with Nesterov momentum and a cosine schedule.

    Attributes:
        steps: optimizer steps.
        batch_size: samples a step.
        lr: the highest learning rate.
        momentum, weight_decay: of SGD.
    """

    steps: int = 300
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4


@dataclass(frozen=True, slots=True)
class Searching:
    """How the supernet is searched.

    Attributes:
        budget: see `mutorch.Budget`.
        strategy: a name that `mutorch.search` knows.
        num_trials: how many subnets are scored with the supernet's weights.
        latency: how latency is measured, where a budget or an objective has `latency_ms`: arguments of `LatencyRunner`, and
            `num_samples` and `tolerance` of `latency_table`. Not measured unless given.
        objective: what to maximise, or with a minus before it to minimise, or a list of these; the recipe's own unless given.
        workers: how many processes score subnets; 0: this one. The result is the same.
        ahead: how many subnets may be under way at once.
        calibration_samples: how many training samples BatchNorm statistics are measured on.
    """

    budget: Mapping[str, Any] = field(default_factory=dict)
    strategy: str = "evolution"
    num_trials: int = 100
    latency: Mapping[str, Any] | None = None
    objective: str | Sequence[str] | None = None
    workers: int = 0
    ahead: int = AHEAD
    calibration_samples: int = 2800


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole run.

    Attributes:
        model, data: configs for `MODELS` and `DATASETS`.
        supernet: the training of the supernet.
        retrain: the training of each subnet that is trained alone.
        search: the search.
        num_retrained: how many of the best are trained alone; the best of them on validation data wins.
        num_random: how many random subnets within the budget are trained alone as the baseline; as many as the supernet's
            steps would pay for unless given.
        seed: decides everything that is random.
        threads: how many CPU threads torch computes with; its own choice unless given. Small models are faster with one.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    supernet: Training = field(default_factory=lambda: Training(steps=3000))
    search: Searching = field(default_factory=Searching)
    retrain: Training = field(default_factory=Training)
    num_retrained: int = 5
    num_random: int | None = None
    seed: int = 0
    threads: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """The settings that a config file describes; the config is not changed.

        Errors:
            ConfigError: unknown or missing keys, with the nearest names; values of another type or too small.

        Example:
            >>> settings = Settings.from_config({"model": {"type": "ChainNet"}, "data": {"type": "ClutteredDigits"}})
            >>> settings.supernet.steps
            3000
        """
        known = {**config}
        for extra in ("recipe", "output", "custom_imports"):
            known.pop(extra, None)
        check_keys(known, [f.name for f in fields(cls)], "the config")
        for key in ("model", "data"):
            if key not in known:
                raise ConfigError(f"a config needs {key!r}, a dict with `type`; this one has {sorted(config)}")
            if not isinstance(known[key], Mapping):
                raise ConfigError(f"{key!r} must be a dict with `type`, got {known[key]!r}")
        parts = {"supernet": Training, "retrain": Training, "search": Searching}
        for key, kind in parts.items():
            if key in known:
                base = Training(steps=3000) if key == "supernet" else kind()
                known[key] = filled(base, known[key], key)
        optional = {
            key: value for key, value in known.items() if value is not None or key not in ("num_random", "threads")
        }
        return cls(**checked(optional, ""))


def filled(base: T, given: Any, where: str) -> T:
    """A copy of a record with the values that a config gives for it, checked."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where!r} must be a dict, got {type(given).__name__}")
    names = [f.name for f in fields(base)]  # type: ignore[arg-type]
    check_keys(given, names, f"{where!r}")
    return type(base)(**{**{name: getattr(base, name) for name in names}, **checked(given, f"{where}: ")})


def checked(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values, found wrong here and not after hours of training; 1e3 is a whole number."""
    values = {**given}
    for name, value in given.items():
        if name in _AT_LEAST:
            values[name] = _whole(value)
            if values[name] is None or values[name] < _AT_LEAST[name]:
                raise ConfigError(f"{where}{name} must be a whole number of at least {_AT_LEAST[name]}, got {value!r}")
        elif name in _NOT_NEGATIVE:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"{where}{name} must be a number of at least 0, got {value!r}")
        elif name == "strategy" and value not in list(STRATEGIES):
            raise ConfigError(f"no strategy {value!r}; {nearest(value, STRATEGIES)}")
        elif name == "objective":
            Objectives.parse(value)
        elif name == "latency" and value is not None:
            runner_and_options(value)
    return values


def runner_and_options(latency: Mapping[str, Any]) -> tuple[LatencyRunner, dict[str, Any]]:
    """What measures, and the arguments of `latency_table`, as a config says.

    Example:
        >>> runner, options = runner_and_options({"runtime": "eager", "threads": 1, "num_samples": 60})
        >>> runner.threads, options
        (1, {'num_samples': 60})
    """
    if not isinstance(latency, Mapping):
        raise ConfigError(f"'latency' must be a dict, got {type(latency).__name__}")
    names = [f.name for f in fields(LatencyRunner)]
    check_keys(latency, [*names, *_OF_TABLE], "'latency'")
    runner = LatencyRunner(**{name: value for name, value in latency.items() if name in names})
    return runner, {name: value for name, value in latency.items() if name in _OF_TABLE}


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return None
    return int(value)


def check_keys(given: Mapping[str, Any], allowed: list[str], where: str) -> None:
    """Refuse a key that nothing reads."""
    for key in given:
        if key not in allowed:
            raise ConfigError(f"{where} has no key {key!r}; {nearest(key, allowed)}")
