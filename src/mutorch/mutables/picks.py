"""How many of its parts a decision takes, and what a vector of logits then means."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor


class Picks(ABC):
    """How a learned decision is read off its logits, one for each part."""

    __slots__ = ()

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """One probability for each part."""

    @abstractmethod
    def best(self, probabilities: Sequence[float]) -> list[int]:
        """The numbers of the most probable parts, ascending."""

    @abstractmethod
    def sample(self, probabilities: Sequence[float], random: Random) -> list[int]:
        """The numbers of parts drawn by their probabilities, ascending."""

    @abstractmethod
    def log_probability(self, logits: Tensor, numbers: Sequence[int]) -> Tensor:
        """The log-probability that `sample` draws these, in this order; a scalar with a gradient."""

    @abstractmethod
    def entropy(self, probabilities: Tensor) -> float:
        """The entropy in shares of the largest: 1 is undecided, 0 decided."""

    @abstractmethod
    def lead(self, probabilities: Sequence[float]) -> float:
        """How far the decision is from being another one, between 0 and 1."""


@dataclass(frozen=True, slots=True)
class Some(Picks):
    """A fixed number of parts, each at most once; drawn one after the other from softmax(logits).

    Example:
        >>> Some(2).best([0.2, 0.5, 0.3])
        [1, 2]
    """

    count: int = 1

    def probabilities(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits, dim=-1)

    def best(self, probabilities: Sequence[float]) -> list[int]:
        ranked = sorted(range(len(probabilities)), key=lambda number: -probabilities[number])
        return sorted(ranked[: self.count])

    def sample(self, probabilities: Sequence[float], random: Random) -> list[int]:
        left, drawn = list(probabilities), []
        for _ in range(min(self.count, len(left))):
            # What is left may be nothing, as floats have it: then all that is left is alike.
            waiting = [number for number in range(len(left)) if number not in drawn]
            weights = [left[number] for number in waiting]
            (number,) = random.choices(waiting, weights if any(weights) else None)
            drawn.append(number)
        return sorted(drawn)

    def log_probability(self, logits: Tensor, numbers: Sequence[int]) -> Tensor:
        total, mask = logits.new_zeros(()), torch.zeros_like(logits)
        for number in numbers:
            total = total + torch.log_softmax(logits + mask, dim=-1)[number]
            mask = mask.index_fill(0, torch.tensor([number], device=mask.device), float("-inf"))
        return total

    def entropy(self, probabilities: Tensor) -> float:
        most = math.log(len(probabilities))
        return float(torch.special.entr(probabilities).sum()) / most if most else 0.0

    def lead(self, probabilities: Sequence[float]) -> float:
        if self.count >= len(probabilities):
            return 1.0
        ranked = sorted(probabilities, reverse=True)
        return ranked[self.count - 1] - ranked[self.count] if self.count else 1.0


@dataclass(frozen=True, slots=True)
class AnyNumber(Picks):
    """Any parts, none or all of them; each is drawn alone, with probability sigmoid(logit).

    Example:
        >>> AnyNumber().best([0.2, 0.9, 0.6])
        [1, 2]
    """

    def probabilities(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

    def best(self, probabilities: Sequence[float]) -> list[int]:
        return [number for number, p in enumerate(probabilities) if p > 0.5]

    def sample(self, probabilities: Sequence[float], random: Random) -> list[int]:
        return [number for number, p in enumerate(probabilities) if random.random() < p]

    def log_probability(self, logits: Tensor, numbers: Sequence[int]) -> Tensor:
        signs = torch.full_like(logits, -1.0)
        signs[list(numbers)] = 1.0
        return torch.nn.functional.logsigmoid(signs * logits).sum()

    def entropy(self, probabilities: Tensor) -> float:
        both = torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)
        return float(both.mean()) / math.log(2)

    def lead(self, probabilities: Sequence[float]) -> float:
        return min(abs(2 * p - 1) for p in probabilities)
