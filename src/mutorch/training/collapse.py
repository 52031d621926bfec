"""Is a differentiable search collapsing? What is decided, and how much of it is operations without weights."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mutorch.errors import ConfigError
from mutorch.mutators import Mutator
from mutorch.space import Architecture
from mutorch.utils import has_weights

_UNDECIDED = 0.95
"""From this entropy on, what is most probable means nothing yet."""


class CollapseWarning(UserWarning):
    """A search that is turning into skip connections, pools and zeros."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a search at one moment.

    Attributes:
        architecture: the most probable one.
        entropy: the mean over decisions, in shares of the largest possible.
        skip_share: the share of decisions whose most probable candidate has no weight matrix or kernel.
        unchanged: how many readings in a row the architecture has been the same, this one not counted.
        should_stop: whether `max_skips` was exceeded in `patience` readings in a row.
    """

    architecture: Architecture
    entropy: float
    skip_share: float
    unchanged: int
    should_stop: bool


class CollapseMeter:
    """Reads a search every now and then, and warns once when it collapses.

    DARTS that trains too long prefers operations without weights, as they are never untrained (DARTS+, arXiv 1909.06035,
    which stops at a count of skips; RobustDARTS, arXiv 1909.09656).

    Args:
        mutator: with architecture parameters.
        warn_at: the skip share from which on it warns.
        max_skips: how many decisions may be without weights before `should_stop`; any number unless given.
        patience: for how many readings in a row.

    Example:
        >>> from torch import nn
        >>> from mutorch.mutables import DiffMutableOP
        >>> net = nn.Sequential(DiffMutableOP({"skip": nn.Identity(), "linear": nn.Linear(2, 2)}))
        >>> mutator = Mutator(net)
        >>> mutator.prepare_arch_params()
        >>> reading = CollapseMeter(mutator, warn_at=2.0).read()
        >>> round(reading.entropy, 2), reading.unchanged
        (1.0, 0)
    """

    def __init__(
        self, mutator: Mutator, *, warn_at: float = 0.7, max_skips: int | None = None, patience: int = 1
    ) -> None:
        if patience < 1:
            raise ConfigError(f"patience must be at least 1, got {patience}")
        self.mutator = mutator
        self.warn_at = warn_at
        self.max_skips = max_skips
        self.patience = patience
        self._warned = False
        self._exceeded = 0
        self._unchanged = 0
        self._before: Architecture | None = None

    def state_dict(self) -> dict[str, Any]:
        """What earlier readings left, as plain values."""
        return {
            "warned": self._warned,
            "exceeded": self._exceeded,
            "unchanged": self._unchanged,
            "before": None if self._before is None else dict(self._before),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._warned, self._exceeded = state["warned"], state["exceeded"]
        self._unchanged, self._before = state["unchanged"], state["before"]

    def read(self) -> Reading:
        """The state now.

        Warns:
            CollapseWarning: the first time that the skip share is `warn_at` or more, once preferences mean something.
        """
        architecture = self.mutator.argmax(exclude=())
        entropies = self.mutator.entropy()
        mean = sum(entropies.values()) / len(entropies)
        operations = {
            name: self.mutator.arch.mutables[name][0]
            for name in self.mutator.arch.learned
            if self.mutator.arch.takes_one(name) and self.mutator.arch.mutables[name][0].candidates
        }
        without = [name for name, op in operations.items() if not has_weights(op.candidates[architecture[name]])]
        share = len(without) / max(1, len(operations))
        self._unchanged = self._unchanged + 1 if architecture == self._before else 0
        self._before = architecture
        is_over = self.max_skips is not None and len(without) > self.max_skips
        self._exceeded = self._exceeded + 1 if is_over else 0
        if share >= self.warn_at and mean < _UNDECIDED and not self._warned:
            self._warned = True
            warnings.warn(
                f"the search is collapsing: {len(without)} of {len(operations)} decisions prefer an operation without "
                f"weights ({', '.join(without[:5])}); stop earlier, warm the weights up longer, or sample paths instead",
                CollapseWarning,
                stacklevel=2,
            )
        return Reading(architecture, mean, share, self._unchanged, self._exceeded >= self.patience)
