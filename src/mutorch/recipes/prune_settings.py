"""What a pruning run is made of, read from a config and checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from inspect import signature
from typing import Any

from mutorch.errors import ConfigError, nearest
from mutorch.importance import L1, L2, BatchNormScale, GroupFisher, Importance, Random, Taylor
from mutorch.pruning import ALLOCATIONS, Finetune, Gradual, OneByOne, by_ratio

from .settings import Training, check_keys, checked, filled

RANKINGS: dict[str, Callable[..., Importance]] = {
    "l1": L1,
    "l2": L2,
    "batch_norm_scale": BatchNormScale,
    "taylor": Taylor,
    "group_fisher": GroupFisher,
    "random": Random,
}
"""What `importance` in a config may be: a name, or a dict with `type` and options."""
WITH_GRADIENTS = ("taylor", "group_fisher")
"""Rankings that also take batches and a loss, which the recipe has."""
GRADUAL: dict[str, type[Gradual | OneByOne]] = {"rounds": Gradual, "one_by_one": OneByOne}
"""What `gradual` in a config may be: a name, or a dict with `type` and options."""


OPTIONAL = ("threads", "weights", "importance", "gradual")


@dataclass(frozen=True, slots=True)
class PruneSettings:
    """A whole run of `mutorch prune`.

    Attributes:
        model, data: configs for `MODELS` and `DATASETS`.
        budget: see `mutorch.Budget`.
        weights: a file with the model's trained weights, from `mutorch.save` or `torch.save(model.state_dict())`.
        train: how to train the model first where there are no weights.
        importance: a name of `RANKINGS`, or a dict with `type` and options; the default of `mutorch.shrink` unless given.
        allocation: `"uniform"`, `"global"`, `"absolute"`, or a dict from globs over units to the shares that they keep.
        gradual: a name of `GRADUAL`, or a dict with `type` and options of `mutorch.pruning.Gradual` or `OneByOne`; one
            cut unless given.
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
    allocation: str | Mapping[str, float] = "uniform"
    gradual: Gradual | OneByOne | None = None
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
        _read_ways(known)
        for key in ("only", "freeze"):
            if key in known:
                known[key] = (known[key],) if isinstance(known[key], str) else tuple(known[key] or ())
        known["tie"] = tuple(tuple(paths) for paths in known.get("tie") or ())
        optional = {k: v for k, v in known.items() if v is not None or k not in OPTIONAL}
        return cls(**checked(optional, ""))


def _read_ways(known: dict[str, Any]) -> None:
    """How channels are ranked, how many go where, and when: read in place."""
    if known.get("importance") is not None:
        known["importance"] = _chosen("importance", known["importance"], RANKINGS)
        ranking_of(known["importance"], (), lambda *_: None)  # which checks the values
    if known.get("gradual") is not None:
        chosen = _chosen("gradual", known["gradual"], GRADUAL)
        known["gradual"] = GRADUAL[chosen.pop("type")](**chosen)
    allocation = known.get("allocation", "uniform")
    if isinstance(allocation, Mapping):
        by_ratio(allocation)  # which checks the shares
    elif allocation not in ALLOCATIONS:
        raise ConfigError(f"no allocation {allocation!r}; {nearest(allocation, ALLOCATIONS)}")


def _chosen(key: str, given: Any, names: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """A dict with a `type` that there is, and options that it takes."""
    chosen = {"type": given} if isinstance(given, str) else dict(given) if isinstance(given, Mapping) else {}
    if chosen.get("type") not in names:
        raise ConfigError(f"no {key} {chosen.get('type', given)!r}; {nearest(chosen.get('type', given), names)}")
    options = [name for name in signature(names[chosen["type"]]).parameters if name not in ("batches", "loss")]
    check_keys({name: value for name, value in chosen.items() if name != "type"}, options, f"{key!r}")
    return chosen


def ranking_of(chosen: Mapping[str, Any], batches: Any, loss: Callable[..., Any]) -> Importance:
    """The ranking that a config chose."""
    options = {name: value for name, value in chosen.items() if name != "type"}
    if chosen["type"] in WITH_GRADIENTS:
        options |= {"batches": batches, "loss": loss}
    return RANKINGS[chosen["type"]](**options)
