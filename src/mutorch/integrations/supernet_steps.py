"""What a supernet needs around the steps of somebody else's trainer, in the words of no trainer."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from mutorch.errors import ConfigError, nearest
from mutorch.mutators import Mutator
from mutorch.space import Architecture, Choice, SearchSpace
from mutorch.training import Protection, sandwiched, single_path, strict_fair
from mutorch.training import protect as protect_optimizer
from mutorch.training.steps import check_model

Sampler = Callable[[SearchSpace, int, int], Architecture]
"""Takes the space, the seed and a number, counted upward over the training; returns the architecture with that number."""


def _in_turn(
    several: Callable[[SearchSpace, int, int], list[Architecture]], space: SearchSpace, seed: int, number: int
) -> Architecture:
    """One after the other what a step with several architectures trains together."""
    step, turn = divmod(number, len(several(space, seed, 0)))
    return several(space, seed, step)[turn]


SAMPLERS: dict[str, Sampler] = {
    "uniform": single_path,
    "fair": partial(_in_turn, strict_fair),
    "sandwich": partial(_in_turn, sandwiched),
}


class SupernetSteps:
    """A supernet at the right architecture before, in and after each step of a trainer, and its optimizers protected.

    Call `check` and `start` before the training, `train(number)` before a forward, `rest` after the step, and `stop` at the
    end. Between the steps, and from its making on, the supernet is at `evaluate_at`.

    Args:
        mutator: of the model that is trained, or of the part of it that has choices.
        seed: determines, together with a number, which architecture is trained: on every rank, and in a resumed run.
        sample: `"uniform"`: as `single_path_step` draws them. `"fair"`: one after the other those that a `strict_fair_step`
            trains together. `"sandwich"`: the largest, the smallest and two random ones in turn. Or a function of yours (a
            `Sampler`). `None`: the training step itself sets its architectures, as `sandwich_step` does.
        every: an architecture for each optimizer step (`"step"`), or for each of the batches whose gradients are
            accumulated for it (`"batch"`).
        evaluate_at: the architecture between the steps, for validation; the largest unless given.
        protect: whether what a step did not use keeps its weights and its momentum; see `mutorch.training.protect`.

    Errors:
        ConfigError: an unknown way to sample.
        SpaceError, ChoiceError: `evaluate_at` is no architecture of the space.

    Example:
        >>> import torch
        >>> from mutorch import searchable
        >>> net = searchable(nn.Sequential(nn.Linear(2, 16), nn.Linear(16, 1)), torch.ones(1, 2))
        >>> mutator = Mutator(net)
        >>> steps = SupernetSteps(mutator, seed=0)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
        >>> steps.check(net)
        >>> steps.start([optimizer])
        >>> for number in range(3):
        ...     steps.train(number)
        ...     width = mutator.current_choices["0"]
        ...     net(torch.ones(4, 2)).sum().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     steps.rest()
        ...     print(width, mutator.current_choices["0"])
        16 16
        8 16
        16 16
        >>> steps.stop()
    """

    def __init__(
        self,
        mutator: Mutator,
        *,
        seed: int = 0,
        sample: str | Sampler | None = "uniform",
        every: Literal["step", "batch"] = "step",
        evaluate_at: Mapping[str, Choice] | None = None,
        protect: bool = True,
    ) -> None:
        if isinstance(sample, str) and sample not in SAMPLERS:
            raise ConfigError(f"no way to sample {sample!r}; {nearest(sample, SAMPLERS)}, or a function, or None")
        if every not in ("step", "batch"):
            raise ConfigError(f"no {every!r} to sample for; {nearest(every, ('step', 'batch'))}")
        self._mutator = mutator
        self._seed = seed
        self._sample = SAMPLERS[sample] if isinstance(sample, str) else sample
        self.every = every
        self._evaluate_at = dict(mutator.space.max if evaluate_at is None else evaluate_at)
        self._protect = protect
        self._protections: list[Protection] = []
        self.rest()

    def check(self, model: nn.Module) -> None:
        """Raise a `StateError` if the mutator belongs to another model than the one that will be trained."""
        check_model(model, self._mutator)

    def start(self, optimizers: Iterable[Optimizer]) -> None:
        """Protect the optimizers that hold parameters of the supernet, until `stop`.

        Errors:
            ConfigError: none holds any, or one cannot be protected.
        """
        self.stop()  # what a run that failed left
        if not self._protect:
            return
        ids = {id(parameter) for parameter in self._mutator.model.parameters()}
        for optimizer in optimizers:
            if any(id(parameter) in ids for group in optimizer.param_groups for parameter in group["params"]):
                self._protections.append(protect_optimizer(optimizer, self._mutator.model))
        if not self._protections:
            raise ConfigError(
                f"no optimizer of the trainer has parameters of the {type(self._mutator.model).__name__} that the mutator "
                "belongs to; make it of the searchable model's parameters, or give protect=False"
            )

    def train(self, number: int) -> None:
        """Set the architecture with this number."""
        if self._sample is not None:
            self._mutator.set_choices(self._sample(self._mutator.space, self._seed, number))

    def rest(self) -> None:
        """Set the architecture for validation."""
        self._mutator.set_choices(self._evaluate_at)

    def stop(self) -> None:
        """Set the architecture for validation, and protect nothing any more."""
        self.rest()
        while self._protections:
            self._protections.pop().remove()
