"""What a pruning run is made of, read from a config and checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mutorch.errors import ConfigError, nearest
from mutorch.importance import L1, L2, BatchNormScale, Importance, Random, Taylor
from mutorch.pruning import ALLOCATIONS, Finetune

from .settings import Training, check_keys, checked, filled

RANKINGS: dict[str, Callable[..., Importance]] = {
    "l1": L1,
    "l2": L2,
    "batch_norm_scale": BatchNormScale,
    "taylor": Taylor,
    "random": Random,
}
"""What `importance` in a config may be: a name, or a dict with `type` and options."""


@dataclass(frozen=True, slots=True)
class PruneSettings:
    """A whole run of `mutorch prune`.

    Attributes:
        model, data: configs for `MODELS` and `DATASETS`.
        budget: see `mutorch.Budget`.
        weights: a file with the model's trained weights, from `mutorch.save` or `torch.save(model.state_dict())`.
        train: how to train the model first where there are no weights.
        importance: a name of `RANKINGS`, or a dict with `type` and options; the default of `mutorch.shrink` unless given.
        allocation: `"uniform"` or `"global"`.
        finetune: see `mutorch.pruning.Finetune`.
        only, freeze, tie, divisor, min_ratio: see `mutorch.shrink`.
        batch_size: samples a step of the finetuning.
        seed: decides everything that is random.
        threads: how many CPU threads torch computes with; its own choice unless given.
    """

    model: Mapping[str, Any]
    data: Mapping[str, Any]
    budget: Mapping[str, Any]
    weights: str | None = None
    train: Training = field(default_factory=lambda: Training(steps=500))
    importance: Mapping[str, Any] | None = None
    allocation: str = "uniform"
    finetune: Finetune = field(default_factory=Finetune)
    only: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    tie: tuple[tuple[str, ...], ...] = ()
    divisor: int = 8
    min_ratio: float = 0.1
    batch_size: int = 64
    seed: int = 0
    threads: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "PruneSettings":
        """The settings that a config file describes; the config is not changed.

        Errors:
            ConfigError: a missing or unknown key, or a value that is out of range.

        Example:
            >>> settings = PruneSettings.from_config({"model": {"type": "MyNet"}, "data": {"type": "ClutteredDigits"},
            ...     "budget": {"macs": "50%"}, "importance": "l1", "finetune": {"steps": 100}})
            >>> settings.finetune.steps, settings.importance
            (100, {'type': 'l1'})
        """
        known = {key: value for key, value in config.items() if key not in ("recipe", "output", "custom_imports")}
        check_keys(known, [f.name for f in fields(cls)], "the config")
        for key in ("model", "data", "budget"):
            if not isinstance(known.get(key), Mapping):
                raise ConfigError(f"a config needs {key!r}, a dict; this one has {known.get(key)!r}")
        for key, base in (("train", Training(steps=500)), ("finetune", Finetune())):
            if key in known:
                known[key] = filled(base, known[key], key)
        if known.get("importance") is not None:
            known["importance"] = _ranking(known["importance"])
        if known.get("allocation", "uniform") not in ALLOCATIONS:
            raise ConfigError(f"no allocation {known['allocation']!r}; {nearest(known['allocation'], ALLOCATIONS)}")
        for key in ("only", "freeze"):
            if key in known:
                known[key] = (known[key],) if isinstance(known[key], str) else tuple(known[key] or ())
        known["tie"] = tuple(tuple(paths) for paths in known.get("tie") or ())
        optional = {k: v for k, v in known.items() if v is not None or k not in ("threads", "weights", "importance")}
        return cls(**checked(optional, ""))


def _ranking(given: Any) -> dict[str, Any]:
    ranking = {"type": given} if isinstance(given, str) else dict(given) if isinstance(given, Mapping) else {}
    if ranking.get("type") not in RANKINGS:
        raise ConfigError(
            f"no importance {ranking.get('type', given)!r}; {nearest(ranking.get('type', given), RANKINGS)}"
        )
    return ranking
