"""The base of mutables whose choice is learned by gradient."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_flatten, tree_unflatten

from mutorch.errors import ChoiceError
from mutorch.space import random_at
from mutorch.utils import checkpointed, has_weights

from .base import CHOICE_TYPE, CHOSEN_TYPE
from .module import MutableModule
from .picks import Picks, Some
from .relaxation import Relaxation, Softmax, gumbel_noise, top_paths


class Draw(NamedTuple):
    """What one step's randomness decided for one decision.

    Attributes:
        noise: Gumbel noise, one for each candidate.
        paths: the numbers of the candidates that compute.
    """

    noise: Tensor
    paths: tuple[int, ...]


class DiffMutableModule(MutableModule[CHOICE_TYPE, CHOSEN_TYPE]):
    """A module mutable that can compute a mixture of its candidates, weighted by an architecture parameter (seed 001).

    `forward(x)` computes, in this order: what was fixed; the mixture by `arch_param`, if one is given; the current
    choice, if there is one, as in a one-shot supernet; the mixture by the parameter that `set_forward_args` bound; and
    without any of these, all candidates (`forward_all`).

    The architecture parameter is no parameter of this module: it belongs to whoever made it, a `Mutator` as a rule, and
    is neither in `parameters()` nor in `state_dict()`. What is random in a step is drawn by the mutator from a seed and
    the number of the step. Used without a mutator, a module draws from its own `generator`, whose seed depends on the alias.

    Args:
        relaxation: which candidates compute in a mixture, and with which weights; `Softmax()` unless given.
        module_kwargs, alias, init_cfg: see `MutableModule`.

    Attributes:
        relaxation: may be replaced at any time, as a temperature schedule does.
        checkpoint: whether candidates keep no activations for backward but compute again there. Their BatchNorm
            statistics are updated once all the same.
        normalize: whether each candidate's output, shape (batch, channels, ...), is normalised by the batch, without scale
            and shift, before it is weighted. Weights then say how much of a candidate is used, which they do not where one
            with a BatchNorm of its own can make itself large or small; see docs/differentiable-search.md. A chosen
            candidate computes as it is.
        skip_dropout: with which probability what a candidate without weights computes is set to zero in a mixture that is
            trained, value by value (P-DARTS, arXiv 1904.12760): skips cannot win by being trained sooner.
    """

    def __init__(self, *, relaxation: Relaxation | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.relaxation: Relaxation = relaxation or Softmax()
        self.checkpoint = False
        self.normalize = False
        self.skip_dropout = 0.0
        self.generator: torch.Generator | None = None
        self._draw: Draw | None = None
        # Not an attribute that nn.Module would register: the parameter is the mutator's.
        self.__dict__["_arch_param"] = None

    def forward(self, x: Any, arch_param: Tensor | None = None) -> Any:
        if self._is_fixed:
            return self.forward_fixed(x)
        if arch_param is not None:
            return self.forward_arch_param(x, arch_param)
        if self._current_choice is not None:
            return self.forward_choice(x, self._current_choice)
        if self.arch_param is not None:
            return self.forward_arch_param(x, self.arch_param)
        return self.forward_all(x)

    @property
    def arch_param(self) -> Tensor | None:
        """The bound architecture parameter."""
        bound: Tensor | None = self.__dict__["_arch_param"]
        return bound

    def set_forward_args(self, arch_param: Tensor | None) -> None:
        """Bind the architecture parameter that `forward(x)` uses from now on; `None` unbinds it.

        Errors:
            ChoiceError: not one value for each candidate.
        """
        if arch_param is not None:
            self._check_arch_param(arch_param)
        self.__dict__["_arch_param"] = arch_param

    def set_draw(self, draw: Draw | None) -> None:
        """Set what the next forwards use as noise and paths; `None`: each forward draws anew from `generator`."""
        self._draw = draw

    def compute_arch_probs(self, arch_param: Tensor) -> Tensor:
        """The weights of all candidates; the softmax over the last dimension, unless the relaxation says otherwise."""
        draw = self._draw or self._drawn(arch_param)
        everything = tuple(range(len(arch_param)))
        if len(draw.paths) == len(everything):
            return self.relaxation.weights(arch_param, draw.noise.to(arch_param), everything)
        weights = self.relaxation.weights(arch_param, draw.noise.to(arch_param), draw.paths)
        index = torch.tensor(draw.paths, device=arch_param.device)
        return torch.zeros_like(arch_param).index_put((index,), weights)

    def active_candidates(self) -> list[nn.Module]:
        """The candidates that the next `forward(x)` computes."""
        if self._current_choice is None and self.arch_param is not None and self._draw is not None:
            names = list(self.candidates)
            return [self.candidates[names[number]] for number in self._draw.paths]
        return super().active_candidates()

    # ---- what the parameter stands for ---------------------------------------------------------------------------

    @property
    def is_learned(self) -> bool:
        """Whether the decision has an architecture parameter of its own."""
        return True

    @property
    def picks(self) -> Picks:
        """How many of `choices`, which have one value each, the decision takes; one, unless a subclass says otherwise."""
        return Some(1)

    def decided(self, numbers: Sequence[int]) -> Any:
        """The choice of the decision that takes these of `choices`."""
        return list(self.choices)[numbers[0]]

    def numbers(self, choice: Any) -> list[int]:
        """Which of `choices` the decision takes at `choice`."""
        return [list(self.choices).index(choice)]

    @abstractmethod
    def sample_choice(self, arch_param: Tensor) -> CHOSEN_TYPE:
        """The choice that an architecture parameter stands for."""

    @abstractmethod
    def forward_arch_param(self, x: Any, arch_param: Tensor) -> Any:
        """Compute the mixture."""

    def forward_choice(self, x: Any, choice: Any) -> Any:
        """Compute one choice."""
        return self.chosen_module(choice)(x)

    # ---- for subclasses ------------------------------------------------------------------------------------------

    def _mixture(self, arch_param: Tensor, candidates: Sequence[nn.Module], inputs: Sequence[Any]) -> Any:
        """The weighted sum of candidates, each with its own input; only those on the drawn paths compute."""
        weights, paths = self._weighted(arch_param)
        return weighted_sum(weights, [self._run(candidates[number], inputs[number]) for number in paths])

    def _weighted(self, arch_param: Tensor) -> tuple[Tensor, Sequence[int]]:
        """The weights of the candidates on the drawn paths, and their numbers."""
        self._check_arch_param(arch_param)
        if self.relaxation.num_paths is None and not self.relaxation.is_random:
            return self.compute_arch_probs(arch_param), range(len(arch_param))  # the graph is always the same
        draw = self._draw or self._drawn(arch_param)
        return self.relaxation.weights(arch_param, draw.noise.to(arch_param), draw.paths), draw.paths

    def _run(self, candidate: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.checkpoint:
            output = checkpointed(candidate, partial(candidate, **kwargs), *args)
        else:
            output = candidate(*args, **kwargs)
        if self.skip_dropout and self.training and not has_weights(candidate):
            output = functional.dropout(output, self.skip_dropout)
        return functional.batch_norm(output, None, None, training=True) if self.normalize else output

    def _drawn(self, arch_param: Tensor) -> Draw:
        if not self.relaxation.is_random:
            noise = torch.zeros(len(arch_param))
        else:
            noise = gumbel_noise(len(arch_param), self._own_generator())
        return Draw(noise, top_paths(self.relaxation, arch_param, noise))

    def _own_generator(self) -> torch.Generator:
        if self.generator is None:
            seed = random_at(0, "relaxation", self.alias or "").getrandbits(63)
            self.generator = torch.Generator().manual_seed(seed)
        return self.generator

    def _check_arch_param(self, arch_param: Tensor) -> None:
        if arch_param.ndim != 1 or len(arch_param) != self.num_choices:
            raise ChoiceError(
                f"{self._describe()} has {self.num_choices} candidates, so its arch_param has shape "
                f"({self.num_choices},); got {tuple(arch_param.shape)}"
            )


def weighted_sum(weights: Tensor, outputs: Sequence[Any]) -> Any:
    """The sum of outputs, each times its weight; tuples, lists and dicts of tensors are added tensor by tensor.

    Weights are converted to the outputs' dtype, so that mixed precision stays what it is.

    Example:
        >>> weighted_sum(torch.tensor([0.5, 2.0]), [torch.ones(2), torch.ones(2)])
        tensor([2.5000, 2.5000])
    """
    if all(isinstance(output, Tensor) for output in outputs):
        total = None
        for weight, output in zip(weights.unbind(), outputs, strict=True):
            part = weight.to(output.dtype) * output if output.dtype != weight.dtype else weight * output
            total = part if total is None else total + part
        return total
    flat = [tree_flatten(output) for output in outputs]
    leaves = [weighted_sum(weights, parts) for parts in zip(*(parts for parts, _ in flat), strict=True)]
    return tree_unflatten(leaves, flat[0][1])
