"""What a search with a controller is made of, read from a config and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mutorch.errors import ConfigError

from .settings import Training, check_keys, checked, filled

CONTROLLER = (
    "lstm_size",
    "lstm_num_layers",
    "tanh_constant",
    "cell_exit_extra_step",
    "skip_target",
    "temperature",
    "branch_bias",
    "entropy_reduction",
)
"""What a config may say of the `EnasMutator`."""


@dataclass(frozen=True, slots=True)
class EnasSearching:
    """How shared weights and controller are trained, and what is proposed then; see `search_by_controller`.

    Attributes:
        rounds, child_steps, controller_steps, num_samples: how much of both.
        batch_size, lr, weight_decay: of the weights' training.
        controller_lr, entropy_weight, skip_weight, baseline_decay: of the controller's.
        num_candidates: how many architectures the trained controller proposes, each scored with the shared weights.
        calibration_samples: how many training samples BatchNorm statistics are measured on for that.
        budget: what proposals must keep to; see `mutorch.Budget`.
    """

    rounds: int = 10
    child_steps: int = 150
    controller_steps: int = 15
    num_samples: int = 6
    batch_size: int = 64
    lr: float = 0.1
    weight_decay: float = 5e-4
    controller_lr: float = 2e-2
    entropy_weight: float = 1e-2
    skip_weight: float = 0.8
    baseline_decay: float = 0.95
    num_candidates: int = 30
    calibration_samples: int = 2800
    budget: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path_steps(self) -> int:
        """Forwards of one path in all, those with a backward and those without."""
        return self.rounds * (self.child_steps + self.controller_steps * self.num_samples)


@dataclass(frozen=True, slots=True)
class EnasSettings:
    """A whole run.

    Attributes:
        model, data: configs for `MODELS` and `DATASETS`; the model has `LayerChoice` and `InputChoice`.
        controller: options of the `EnasMutator`, those that are different.
        search: the search.
        retrain: the training of each subnet that is trained alone.
        num_retrained: how many of the best are trained alone; the best of them on validation data wins.
        num_random: how many random subnets are trained alone as the baseline, one at least; as many as the search's path-steps
            would pay for unless given.
        seed: decides everything that is random.
        threads: how many CPU threads torch computes with; its own choice unless given.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    controller: Mapping[str, Any] = field(default_factory=dict)
    search: EnasSearching = field(default_factory=EnasSearching)
    retrain: Training = field(default_factory=Training)
    num_retrained: int = 3
    num_random: int | None = None
    seed: int = 0
    threads: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "EnasSettings":
        """The settings that a config file describes; the config is not changed.

        Errors:
            ConfigError: unknown or missing keys, with the nearest names; values of another type or out of range.

        Example:
            >>> settings = EnasSettings.from_config({"model": {"type": "EnasMicro"}, "data": {"type": "ClutteredDigits"},
            ...     "search": {"rounds": 2}})
            >>> settings.search.rounds, settings.search.path_steps
            (2, 480)
        """
        known = {key: value for key, value in config.items() if key not in ("recipe", "output", "custom_imports")}
        check_keys(known, [f.name for f in fields(cls)], "the config")
        for key in ("model", "data"):
            if not isinstance(known.get(key), Mapping):
                raise ConfigError(f"a config needs {key!r}, a dict with `type`; this one has {known.get(key)!r}")
        controller = known.get("controller", {})
        if not isinstance(controller, Mapping):
            raise ConfigError(f"'controller' must be a dict, got {type(controller).__name__}")
        check_keys(controller, list(CONTROLLER), "'controller'")
        for key, base in (("search", EnasSearching()), ("retrain", Training())):
            if key in known:
                known[key] = filled(base, known[key], key)
        decay = known["search"].baseline_decay if "search" in known else 0.0
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
            raise ConfigError(f"search: baseline_decay must be a number of at least 0 and below 1, got {decay!r}")
        if known.get("num_random") == 0:
            raise ConfigError("num_random must be at least 1: a search is always shown beside a random architecture")
        optional = {k: v for k, v in known.items() if v is not None or k not in ("num_random", "threads")}
        return cls(**checked(optional, ""))
