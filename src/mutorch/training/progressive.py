"""Progressive shrinking: the largest network first, then ever more of its kernels, depths and widths."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ConfigError, SpaceError, nearest
from mutorch.mutators import Mutator
from mutorch.space import Architecture, Choice, Decision, SearchSpace, random_at

from .distill import Distill
from .sandwich import losses_of
from .steps import LossFunction, run_paths

Opens = str | Sequence[str] | Callable[[Decision], bool]
"""Which decisions: globs over their names, or a function of a decision."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training, in which more choices are open than before.

    Attributes:
        steps: how long it lasts.
        opens: which decisions; see `Opens`. Those of earlier phases stay open. None: the largest architecture alone.
        num_choices: how many of their choices, from the largest on; all unless given.
        num_paths: how many random architectures a step trains beside the largest.

    Example:
        >>> Phase(1000, "*.depth", num_choices=2).opens
        '*.depth'
    """

    steps: int
    opens: Opens = ()
    num_choices: int | None = None
    num_paths: int = 1

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("num_choices", 1), ("num_paths", 1)):
            value = getattr(self, name)
            if name == "num_choices" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"{name} of a phase must be an int of at least {least}, got {value!r}")

    def names(self, space: SearchSpace) -> list[str]:
        """The decisions that it opens.

        Errors:
            SpaceError: a glob that names nothing; says what is near.
        """
        if callable(self.opens):
            found = [decision.name for decision in space if self.opens(decision)]
            if not found:
                raise SpaceError(f"{self.opens!r} holds for no decision; there are: {', '.join(space.names)}")
            return found
        globs = [self.opens] if isinstance(self.opens, str) else list(self.opens)
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in space.names):
                raise SpaceError(f"a phase opens {glob!r}, which names no decision; {nearest(glob, space.names)}")
        return [name for name in space.names if any(fnmatchcase(name, glob) for glob in globs)]


class ProgressiveShrinking:
    """A step function that trains the largest architecture, then random ones from ever more choices.

    Once-for-All (Cai et al., arXiv 1908.09791, section 3.3): kernels first, then depths, then widths, each from its largest
    choice down, so that small networks begin as parts of a large one that is trained. What is not open yet stays at its
    largest choice. Each step trains the largest architecture and some random ones, which also learn to say what it says; or
    these alone, taught by a network that does not change any more, as the paper has it.

    Everything is a function of seed and step. To resume, go on counting; after the last phase all that was opened stays so.

    Args:
        space: that of the mutator.
        phases: one after the other.
        distill, loss_weight: as in `sandwich_step`; the random architectures learn from both, in equal parts.
        teacher: a network to learn from instead of the largest architecture: usually `export(net, space.max)` after
            the first phase. It is run in evaluation mode, and the largest architecture is then no part of later steps.

    Errors:
        ConfigError: no phases.
        SpaceError: a phase that opens what the space has not.

    Example:
        >>> space = SearchSpace([Decision("kernel", (3, 5, 7)), Decision("depth", (2, 3, 4))])
        >>> shrinking = ProgressiveShrinking(space, [Phase(10), Phase(20, "kernel"), Phase(20, "depth", num_choices=2)])
        >>> [shrinking.phase(step) for step in (0, 9, 10, 30, 1000)], shrinking.steps
        ([0, 0, 1, 2, 2], 50)
        >>> shrinking.open_choices(40)
        {'kernel': (7, 5, 3), 'depth': (4, 3)}
        >>> shrinking.architecture(seed=0, step=5)
        {'kernel': 7, 'depth': 4}
    """

    def __init__(
        self,
        space: SearchSpace,
        phases: Sequence[Phase],
        *,
        distill: Distill | bool = True,
        loss_weight: float = 1.0,
        teacher: nn.Module | None = None,
    ) -> None:
        if not phases:
            raise ConfigError("progressive shrinking needs phases, and there are none")
        self.space = space
        self.phases = tuple(phases)
        self._distill, self._loss_weight, self._teacher = distill, loss_weight, teacher
        self._ends = list(accumulate(phase.steps for phase in self.phases))
        self._spaces: list[SearchSpace] = []
        choices: dict[str, tuple[Choice, ...]] = {name: (choice,) for name, choice in space.max.items()}
        for phase in self.phases:
            for name in phase.names(space):
                opened = _largest_first(space, name)[: phase.num_choices]
                choices[name] = max(choices[name], opened, key=len)
            self._spaces.append(_part(space, choices))

    @property
    def steps(self) -> int:
        """How long all phases last together."""
        return self._ends[-1]

    def phase(self, step: int) -> int:
        """The number of the phase that a step is in."""
        return min(sum(step >= end for end in self._ends), len(self.phases) - 1)

    def open_choices(self, step: int) -> dict[str, tuple[Choice, ...]]:
        """What each decision may be at a step, the largest first."""
        return {decision.name: decision.choices for decision in self._spaces[self.phase(step)]}

    def architecture(self, seed: int, step: int, number: int = 0) -> Architecture:
        """A random architecture from what is open; `number` counts those of one step."""
        return self._spaces[self.phase(step)].sample(random_at(seed, "progressive", step, number))

    def architectures(self, seed: int, step: int) -> list[Architecture]:
        """What a step trains, the largest first."""
        if all(len(choices) == 1 for choices in self.open_choices(step).values()):
            return [self.space.max]
        largest = [] if self._teacher is not None else [self.space.max]
        count = self.phases[self.phase(step)].num_paths
        return [*largest, *(self.architecture(seed, step, number) for number in range(count))]

    def __call__(
        self,
        net: nn.Module,
        mutator: Mutator,
        loss_fn: LossFunction,
        *,
        seed: int,
        step: int,
        backward: Callable[[Tensor], Any] = torch.Tensor.backward,
    ) -> Tensor:
        """The gradients of the step's architectures, added up; arguments and result as in `sandwich_step`.

        Errors:
            SpaceError: the mutator of another space.
        """
        if mutator.space.fingerprint != self.space.fingerprint:
            raise SpaceError(
                f"this progressive shrinking is of another space, with the decisions {', '.join(self.space.names)}; the "
                f"mutator has {', '.join(mutator.space.names)}"
            )
        losses = losses_of(loss_fn, self._distill, self._loss_weight, self._teacher)
        return run_paths(net, mutator, losses, self.architectures(seed, step), backward=backward)


def _largest_first(space: SearchSpace, name: str) -> tuple[Choice, ...]:
    """Numbers from the largest down; others in their order. What the largest architecture has comes first."""
    choices = list(space[name].choices)
    if all(isinstance(choice, int | float) for choice in choices):
        choices.sort(reverse=True)
    first = space.max[name]
    return (first, *(choice for choice in choices if choice != first))


def _part(space: SearchSpace, choices: dict[str, tuple[Choice, ...]]) -> SearchSpace:
    """The space with these choices only. A decision whose candidate is not open is at its largest choice."""
    made = []
    for decision in space:
        when = tuple((parent, choice) for parent, choice in decision.when if choice in choices[parent])
        matters = bool(when) or not decision.when
        kept = choices[decision.name] if matters else choices[decision.name][:1]
        made.append(Decision(decision.name, kept, kept[0], kept[0], when=when))
    return SearchSpace(made, space.constraints)
