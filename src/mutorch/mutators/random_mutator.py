"""Random masks."""

import torch
from torch import Tensor, nn

from mutorch.mutables import Chooser, InputChoice
from mutorch.mutables.masks import one_hot

from .mask_mutator import MaskMutator


class RandomMutator(MaskMutator):
    """One candidate of each `LayerChoice`, `n_chosen` inputs of each `InputChoice`, uniformly; a fair coin an input where any
    number is taken. `export()` draws anew.

    Args:
        model: see `BaseMutator`.
        seed: of the mutator's own generator; equal seeds give equal decisions, on all ranks.

    Example:
        >>> from mutorch.mutables import LayerChoice
        >>> net = nn.Sequential(LayerChoice([nn.Tanh(), nn.ReLU()], key="act"))
        >>> mutator = RandomMutator(net, seed=0)
        >>> mutator.reset()
        >>> sum(mutator.status()["act"])
        1
    """

    def __init__(self, model: nn.Module, *, seed: int = 0) -> None:
        super().__init__(model)
        self.generator = torch.Generator().manual_seed(seed)

    def sample_search(self) -> dict[str, Tensor]:
        return {str(mutable.key): self._draw(mutable) for mutable in self.choosers}

    def sample_final(self) -> dict[str, Tensor]:
        return self.sample_search()

    def _draw(self, mutable: Chooser) -> Tensor:
        count = len(mutable.choices)
        if isinstance(mutable, InputChoice) and mutable.n_chosen is None:
            return torch.randint(2, (count,), generator=self.generator).bool()
        chosen = mutable.n_chosen if isinstance(mutable, InputChoice) else 1
        return one_hot(torch.randperm(count, generator=self.generator)[:chosen].tolist(), count)
