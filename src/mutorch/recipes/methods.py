"""The methods of differentiable search, as what a loop has to fill in."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from mutorch.errors import ConfigError, nearest
from mutorch.mutables import Gumbel, OneHot, Relaxation, Softmax, TwoPaths
from mutorch.training import Temperature


@dataclass(frozen=True, slots=True)
class Method:
    """How a search learns.

    Attributes:
        arch: what gives the architecture its gradient: `"gradient"` (`arch_step`), `"unrolled"`, `"joint"` (with the
            weights, from the same forward), or `"policy"` (`policy_step`).
        relaxation: of the architecture's steps.
        weights: the relaxation of the weights' steps; `None`: one architecture a step, drawn by probability.
        warmup: the share of the path-steps that trains weights alone, by uniform single paths.
        arch_lr: the learning rate of the architecture (Adam).
        num_samples: of `policy_step`.
        fix_threshold: decisions with this lead are settled (DSNAS); 1: none is.
        normalize: whether mixtures normalise what they add up; see `DiffMutableModule`.
        temperature: that of Gumbel relaxations over the search after the warm-up; their own unless given.

    Example:
        >>> METHODS["darts"].arch, METHODS["darts-two-level"].arch
        ('joint', 'gradient')
    """

    arch: Literal["gradient", "unrolled", "joint", "policy"]
    relaxation: Relaxation
    weights: Relaxation | None
    warmup: float = 0.0
    arch_lr: float = 0.02
    num_samples: int = 4
    fix_threshold: float = 1.0
    normalize: bool = False
    temperature: Temperature | None = None

    def at(self, done: float) -> tuple[Relaxation, Relaxation | None]:
        """The relaxations of architecture and weights when a share `done` of the learning is over."""
        if self.temperature is None:
            return self.relaxation, self.weights
        tau = self.temperature(done)
        arch, weights = (
            replace(rule, tau=tau) if isinstance(rule, Gumbel) else rule for rule in (self.relaxation, self.weights)
        )
        assert arch is not None
        return arch, weights


METHODS = {
    "samples": Method("policy", OneHot(), None, warmup=0.6, arch_lr=0.1),
    "darts": Method("joint", Softmax(), Softmax(), normalize=True),
    "darts-two-level": Method("gradient", Softmax(), Softmax(), arch_lr=0.05, normalize=True),
    "darts-second-order": Method("unrolled", Softmax(), Softmax(), arch_lr=0.05, normalize=True),
    "darts-plain": Method("gradient", Softmax(), Softmax()),
    "gumbel": Method("joint", Gumbel(hard=False), Gumbel(hard=False), normalize=True),
    "gdas": Method("gradient", Gumbel(single_path=True), Gumbel(single_path=True), temperature=Temperature(10.0, 0.1)),
    "dsnas": Method("joint", OneHot(), OneHot(), fix_threshold=0.9),
    "proxyless": Method("gradient", TwoPaths(), OneHot()),
}
"""The published methods, and `"samples"`, which is the one to begin with; see docs/differentiable-search.md."""

_PLAIN = ("warmup", "arch_lr", "num_samples", "fix_threshold", "normalize", "temperature")
"""What a config may change of a method."""


def as_method(given: str | Method | Mapping[str, Any]) -> Method:
    """The method that a name, or a dict with `type` and what is different, stands for.

    Errors:
        ConfigError: an unknown name or key, or a value that is out of range.

    Example:
        >>> as_method({"type": "gdas", "arch_lr": 0.1}).arch_lr
        0.1
    """
    if isinstance(given, Method):
        return given
    changes: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {"type": given}
    name = changes.pop("type", None)
    if name not in METHODS:
        raise ConfigError(f"no method {name!r}; {nearest(name, METHODS)}")
    for key, value in changes.items():
        if key not in _PLAIN:
            raise ConfigError(f"a method has no key {key!r}; {nearest(key, _PLAIN)}")
        changes[key] = _temperature(value) if key == "temperature" else _checked(key, value)
    return replace(METHODS[name], **changes)


def _temperature(given: Any) -> Temperature | None:
    if given is None or isinstance(given, Temperature):
        return given
    names = [field.name for field in fields(Temperature)]
    if not isinstance(given, Mapping):
        raise ConfigError(f"temperature must be a dict of {', '.join(names)}, got {given!r}")
    for key in given:
        if key not in names:
            raise ConfigError(f"'temperature' has no key {key!r}; {nearest(key, names)}")
    return Temperature(**given)


def _checked(key: str, value: Any) -> Any:
    if key == "normalize":
        if not isinstance(value, bool):
            raise ConfigError(f"normalize must be true or false, got {value!r}")
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key == "num_samples":
        if not isinstance(value, int) or isinstance(value, bool) or value < 2:
            raise ConfigError(f"num_samples must be a whole number of at least 2, got {value!r}")
    elif not is_number or not value >= 0 or (key != "arch_lr" and value > 1):
        limits = "at least 0" if key == "arch_lr" else "between 0 and 1"
        raise ConfigError(f"{key} must be a number {limits}, got {value!r}")
    return value
