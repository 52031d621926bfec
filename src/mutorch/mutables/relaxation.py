"""How a choice among candidates becomes a sum with weights that architecture parameters can learn from.

A relaxation is one rule with two halves: which candidates compute (`num_paths` of them, or all), and with which weight.
Everything random in it is one vector of Gumbel noise g: the candidate with the largest `a + g` is a sample of
softmax(a), the k largest are a sample without replacement (Gumbel-max trick), and softmax((a + g) / tau) is the relaxed
sample. A relaxation therefore keeps no state and draws nothing: the noise is handed to it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mutorch.errors import ConfigError


class Relaxation(ABC):
    """The base of all relaxations; see the top of this file."""

    __slots__ = ()

    @property
    def num_paths(self) -> int | None:
        """How many candidates compute; `None`: all of them, so that the graph does not depend on the parameters."""
        return None

    @property
    def is_random(self) -> bool:
        """Whether weights or paths depend on the noise."""
        return False

    @abstractmethod
    def weights(self, arch_param: Tensor, noise: Tensor, paths: Sequence[int]) -> Tensor:
        """One weight for each candidate of `paths`.

        Args:
            arch_param: the logits of all candidates, shape (candidates,).
            noise: Gumbel noise of the same shape; only read if `is_random`.
            paths: the numbers of the candidates that compute.
        """


@dataclass(frozen=True, slots=True)
class Softmax(Relaxation):
    """All candidates, weighted by softmax(a): DARTS (arXiv 1806.09055).

    Example:
        >>> Softmax().weights(torch.zeros(2), torch.zeros(2), (0, 1))
        tensor([0.5000, 0.5000])
    """

    def weights(self, arch_param: Tensor, noise: Tensor, paths: Sequence[int]) -> Tensor:
        return torch.softmax(arch_param, dim=-1)


@dataclass(frozen=True, slots=True)
class Gumbel(Relaxation):
    """Relaxed samples y = softmax((a + g) / tau) (arXiv 1611.01144; SNAS, arXiv 1812.09926).

    Args:
        tau: the temperature; towards 0, y is a one-hot sample.
        hard: the value is the one-hot sample, the gradient that of y (straight through).
        single_path: only the sampled candidate computes; its weight is 1 with the gradient of its y (GDAS,
            arXiv 1910.04465).

    Errors:
        ConfigError: a temperature that is not positive, or a soft single path.
    """

    tau: float = 1.0
    hard: bool = True
    single_path: bool = False

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ConfigError(f"a temperature must be positive, got {self.tau}")
        if self.single_path and not self.hard:
            raise ConfigError("a single path has no soft weights; give hard=True, or single_path=False")

    @property
    def num_paths(self) -> int | None:
        return 1 if self.single_path else None

    @property
    def is_random(self) -> bool:
        return True

    def weights(self, arch_param: Tensor, noise: Tensor, paths: Sequence[int]) -> Tensor:
        scores = arch_param + noise
        soft = torch.softmax(scores / self.tau, dim=-1)
        if self.single_path:
            soft = _pick(soft, paths)
            return 1 + (soft - soft.detach())
        if not self.hard:
            return soft
        return _one_hot_like(scores) + (soft - soft.detach())  # the brackets keep the value exact


@dataclass(frozen=True, slots=True)
class OneHot(Relaxation):
    """One sampled candidate of weight 1, whose gradient is that of log softmax(a): DSNAS (arXiv 2002.09128).

    `a` thus receives dL/dw of the sampled candidate times the gradient of its log-probability, in the same backward.
    """

    @property
    def num_paths(self) -> int | None:
        return 1

    @property
    def is_random(self) -> bool:
        return True

    def weights(self, arch_param: Tensor, noise: Tensor, paths: Sequence[int]) -> Tensor:
        log = _pick(torch.log_softmax(arch_param, dim=-1), paths)
        return 1 + (log - log.detach())


@dataclass(frozen=True, slots=True)
class TwoPaths(Relaxation):
    """Two sampled candidates behind binary gates: ProxylessNAS (arXiv 1812.00332).

    The first one sampled has weight 1, the second 0; the gradient is that of their softmax, so that one step moves
    probability between these two alone.
    """

    @property
    def num_paths(self) -> int | None:
        return 2

    @property
    def is_random(self) -> bool:
        return True

    def weights(self, arch_param: Tensor, noise: Tensor, paths: Sequence[int]) -> Tensor:
        soft = torch.softmax(_pick(arch_param, paths), dim=-1)
        return _one_hot_like(_pick(arch_param + noise, paths)) + (soft - soft.detach())


@dataclass(frozen=True, slots=True)
class TopK(Relaxation):
    """The k most probable candidates, weighted by the softmax over these (ASAP, arXiv 1904.04123, prunes to them).

    Nothing is random: a candidate that is never among them is never trained, so begin with all, or shrink k slowly.
    """

    k: int = 2

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"at least one candidate must compute, got k={self.k}")

    @property
    def num_paths(self) -> int | None:
        return self.k

    def weights(self, arch_param: Tensor, noise: Tensor, paths: Sequence[int]) -> Tensor:
        return torch.softmax(_pick(arch_param, paths), dim=-1)


def gumbel_noise(count: int, generator: torch.Generator) -> Tensor:
    """A vector of Gumbel(0, 1) noise in float64, on the CPU: equal wherever the generator's seed is.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> gumbel_noise(3, generator).shape
        torch.Size([3])
    """
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    return -torch.log(-torch.log(uniform.clamp(1e-12, 1 - 1e-12)))


def top_paths(relaxation: Relaxation, arch_param: Tensor, noise: Tensor) -> tuple[int, ...]:
    """The numbers of the candidates that compute, in the order of the candidates.

    For all candidates nothing is read; else `arch_param` is, which waits for its device.
    """
    count = len(arch_param)
    if relaxation.num_paths is None or relaxation.num_paths >= count:
        return tuple(range(count))
    scores = arch_param.detach().to("cpu", torch.float64)
    if relaxation.is_random:
        scores = scores + noise.to("cpu", torch.float64)
    return tuple(sorted(scores.topk(relaxation.num_paths).indices.tolist()))


def _pick(values: Tensor, paths: Sequence[int]) -> Tensor:
    # By plain numbers: an index tensor would be made on the CPU and copied each time.
    return torch.stack([values[number] for number in paths])


def _one_hot_like(scores: Tensor) -> Tensor:
    return torch.zeros_like(scores).scatter_(-1, scores.detach().argmax(dim=-1, keepdim=True), 1.0)
