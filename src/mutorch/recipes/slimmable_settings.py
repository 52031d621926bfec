"""What a run of the slimmable family is made of, read from a config and checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mutorch.channels import depth, widths
from mutorch.channels.depth import Depth
from mutorch.channels.widths import Widths
from mutorch.errors import ConfigError, nearest
from mutorch.pruning import Finetune
from mutorch.pruning.shrink import SHARES
from mutorch.training import Phase

from .channel_settings import check_model_and_data, read, share, whole
from .settings import Training, check_keys, filled

RECIPES = ("slimmable", "us-net", "autoslim", "bignas", "ofa")
"""The methods of the family; see `slimmable`."""

WIDTHS_ONLY = ("slimmable", "us-net")
"""Those that slim all layers alike, and therefore have nothing to say about depths."""

SIXTEENTHS = tuple(count / 16 for count in range(1, 17))
SUPERNET, NOT_AT_ALL = Training(steps=500), Finetune(steps=0)
OPTIONAL = ("threads", "weights", "distill", "loss_weight")


@dataclass(frozen=True, slots=True)
class Choosing:
    """How a supernet is searched once it is trained.

    Attributes:
        strategy: of `bignas` and `ofa`: a name that `mutorch.search` knows.
        num_trials: of these two: how many architectures are scored for each budget.
        calibration: on how many batches BatchNorm statistics of a subnet are measured.
    """

    strategy: str = "evolution"
    num_trials: int = 50
    calibration: int = 16


@dataclass(frozen=True, slots=True)
class SlimmableSettings:
    """A whole run of a recipe of the slimmable family.

    Attributes:
        recipe: one of `RECIPES`.
        model, data: configs for `MODELS` and `DATASETS`.
        budgets: one subnet is taken home for each; see `mutorch.Budget`. `slimmable` may have `widths` instead.
        widths: shares of their channels that units may have: those that a slimmable network has, or those that are trained and
            searched otherwise.
        rules: finer than `widths`: dicts `{widths: glob, ratios: [...]}` or `counts`, and `{depth: glob, counts: [...]}`. The
            last one that names a unit counts. A model that holds mutables needs neither.
        weights: a file with weights to begin with; fresh ones unless given.
        supernet: the training. A step costs one forward and backward for each architecture that it trains.
        num_random: how many random ones beside the largest and the smallest.
        distill: whether the smaller ones learn from the largest; all but `slimmable` do unless given.
        loss_weight: how much of the loss of the labels they learn from beside; 1 for `ofa` and otherwise 0 unless given.
        protect: whether what a step did not train stays as it is; see `mutorch.training.protect`.
        phases: of `ofa`: dicts `{steps, opens, num_choices, num_paths}`; see `mutorch.training.Phase`. Kernels and other values,
            then depths, then widths unless given.
        search: see `Choosing`.
        finetune: of each subnet, with the largest as the teacher; nothing unless given.
        only, freeze, tie, divisor: see `mutorch.searchable` and `mutorch.widths`.
        min_ratio: the smallest share of its channels that a unit keeps, where neither widths nor rules are given: sixteenths of
            each unit are then widths, and for the two that slim all layers alike, all multiples of the divisor.
        seed: decides everything that is random.
        threads: how many CPU threads torch computes with; its own choice unless given.
    """

    recipe: str
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    budgets: tuple[Mapping[str, Any], ...] = ()
    widths: tuple[float, ...] = ()
    rules: tuple[Mapping[str, Any], ...] = ()
    weights: str | None = None
    supernet: Training = field(default_factory=lambda: SUPERNET)
    num_random: int = 2
    distill: bool | None = None
    loss_weight: float | None = None
    protect: bool = False
    phases: tuple[Mapping[str, Any], ...] = ()
    search: Choosing = field(default_factory=Choosing)
    finetune: Finetune = field(default_factory=lambda: NOT_AT_ALL)
    only: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    tie: tuple[tuple[str, ...], ...] = ()
    divisor: int = 8
    min_ratio: float = 0.25
    seed: int = 0
    threads: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SlimmableSettings":
        """The settings that a config file describes; the config is not changed.

        Errors:
            ConfigError: a missing or unknown key, a value out of range, or keys that the recipe has no use for.

        Example:
            >>> settings = SlimmableSettings.from_config({"recipe": "autoslim", "model": {"type": "MyNet"},
            ...     "data": {"type": "ClutteredDigits"}, "budgets": [{"macs": "50%"}, {"macs": "25%"}]})
            >>> settings.supernet.steps, settings.num_random, settings.is_distilled
            (500, 2, True)
        """
        recipe = config.get("recipe")
        if recipe not in RECIPES:
            raise ConfigError(f"no recipe {recipe!r} of slimmable networks; {nearest(recipe, RECIPES)}")
        known = check_model_and_data({**config, "recipe": recipe}, cls)
        for key, base in (("supernet", SUPERNET), ("finetune", NOT_AT_ALL), ("search", Choosing())):
            if key in known:
                known[key] = filled(base, known[key], key)
        whole("search: calibration", known.get("search", Choosing()).calibration)
        for key in ("budgets", "rules", "phases"):
            known[key] = _dicts(key, known.get(key))
        known["widths"] = _shares(known.get("widths"))
        known["tie"] = tuple(tuple(paths) for paths in known.get("tie") or ())
        if known["phases"]:
            steps = sum(phase["steps"] for phase in known["phases"])
            given = (config.get("supernet") or {}).get("steps", steps)
            if given != steps:
                raise ConfigError(f"the phases have {steps} steps and supernet: steps says {given}; leave one out")
            known["supernet"] = replace(known.get("supernet", SUPERNET), steps=steps)
        settings = cls(recipe=recipe, **read(known, globs=("only", "freeze"), optional=OPTIONAL))
        _check(settings)
        return settings

    @property
    def is_distilled(self) -> bool:
        """Whether smaller architectures learn from the largest."""
        return self.recipe != "slimmable" if self.distill is None else self.distill

    @property
    def label_weight(self) -> float:
        """How much of the loss of the labels they learn from beside."""
        return float(self.recipe == "ofa") if self.loss_weight is None else self.loss_weight

    def width_rules(self) -> list[Widths | Depth]:
        """The rules for `searchable`."""
        if self.rules:
            return [_rule(rule, self.divisor) for rule in self.rules]
        every = SHARES if self.recipe in WIDTHS_ONLY else SIXTEENTHS
        ratios = self.widths or tuple(ratio for ratio in every if ratio >= self.min_ratio)
        return [widths(ratios=ratios, divisor=self.divisor)]

    def phases_of(self, names: Sequence[Sequence[str]]) -> list[Phase]:
        """The phases of `ofa`: those of the config, or as many steps for the largest alone and for each kind of decisions.

        Args:
            names: the decisions that are opened together, kind by kind; first with their two largest choices, then all.
        """
        if self.phases:
            return [Phase(**phase) for phase in self.phases]
        kinds = [kind for kind in names if kind]
        parts = [(), *(kind for kind in kinds for _ in range(2))]
        long, rest = divmod(self.supernet.steps, len(parts))
        if not long:
            raise ConfigError(f"ofa has {len(parts)} phases here: supernet: steps must be at least that, got {rest}")
        return [
            Phase(long + (number < rest), opens, 2 if number % 2 else None, 2) for number, opens in enumerate(parts)
        ]


def _check(settings: SlimmableSettings) -> None:
    recipe = settings.recipe
    if not settings.budgets and not (recipe == "slimmable" and settings.widths):
        hint = ", or 'widths', the shares of its channels that the network can have" if recipe == "slimmable" else ""
        raise ConfigError(f"{recipe} needs 'budgets', a list such as [{{macs: 50%}}, {{macs: 25%}}]{hint}")
    if recipe == "slimmable" and settings.widths and settings.budgets:
        raise ConfigError("slimmable has either 'widths' or 'budgets', which say how wide it can be; both are given")
    if settings.rules and (recipe == "slimmable" or settings.widths):
        raise ConfigError(f"{recipe} has either 'widths' or 'rules'" if settings.widths else f"{recipe} has no 'rules'")
    if settings.phases and recipe != "ofa":
        raise ConfigError(f"'phases' are of the recipe ofa; this one is {recipe}")
    if isinstance(settings.num_random, bool) or not isinstance(settings.num_random, int) or settings.num_random < 0:
        raise ConfigError(f"num_random must be a whole number of at least 0, got {settings.num_random!r}")
    for key, value in (("distill", settings.is_distilled), ("protect", settings.protect)):
        if not isinstance(value, bool):
            raise ConfigError(f"{key} must be true or false, got {value!r}")
    weight = settings.label_weight
    if isinstance(settings.loss_weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise ConfigError(f"loss_weight must be a number of at least 0, got {settings.loss_weight!r}")
    _ = [Phase(**phase) for phase in settings.phases]
    rules = settings.width_rules()
    if recipe in WIDTHS_ONLY and any(isinstance(rule, Depth) for rule in rules):
        raise ConfigError(f"{recipe} slims all layers alike and cuts no depths; take autoslim, bignas or ofa")


def _rule(given: Mapping[str, Any], divisor: int) -> Widths | Depth:
    kinds = [kind for kind in ("widths", "depth") if kind in given]
    if len(kinds) != 1:
        raise ConfigError(f"a rule is {{widths: glob, ratios: [...]}} or {{depth: glob}}, got {dict(given)!r}")
    options = {key: value for key, value in given.items() if key != kinds[0]}
    check_keys(options, ["counts"] if kinds[0] == "depth" else ["counts", "ratios", "divisor"], f"the rule {given!r}")
    if kinds[0] == "depth":
        return depth(given["depth"], **options)
    return widths(given["widths"], **{"divisor": divisor, **options})


def _dicts(key: str, given: Any) -> tuple[Mapping[str, Any], ...]:
    items = [given] if isinstance(given, Mapping) else given or []
    if not isinstance(items, Sequence) or not all(isinstance(item, Mapping) for item in items):
        raise ConfigError(f"{key!r} must be a list of dicts, got {given!r}")
    if key == "phases":
        for item in items:
            check_keys(item, ["steps", "opens", "num_choices", "num_paths"], "a phase")
            if "steps" not in item:
                raise ConfigError(f"a phase needs 'steps', got {dict(item)!r}")
    return tuple(items)


def _shares(given: Any) -> tuple[float, ...]:
    shares = given or []
    if not isinstance(shares, list | tuple):
        raise ConfigError(f"'widths' must be a list of shares such as [0.25, 0.5, 1.0], got {given!r}")
    for one in shares:
        share("each of the widths", one)
    return tuple(shares)
