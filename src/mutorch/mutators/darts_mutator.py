"""Masks that are learned by gradient."""

import warnings

import torch
from torch import Tensor, nn

from mutorch.mutables import InputChoice, LayerChoice
from mutorch.mutables.masks import one_hot

from .arch_params import attribute
from .mask_mutator import MaskMutator


class DartsMutator(MaskMutator):
    """A softmax over each `LayerChoice`'s candidates and nothing (DARTS, arXiv 1806.09055; seed 004).

    While searching, candidates are weighed by softmax(alpha) without its last entry, which stands for no operation at all,
    and every `InputChoice` takes all inputs. In the final architecture the best candidate of each `LayerChoice` is taken, and
    of an `InputChoice` the `n_chosen` inputs whose `LayerChoice`, named by `choose_from`, got the largest weight. A weight of
    minus infinity cuts a candidate off. `mutorch.Mutator.prepare_arch_params` learns any model's choices; this is the form
    that a training loop with `reset()` and `export()` expects.

    Args:
        model: see `BaseMutator`.
        seed: of the initial values, 1e-3 times normal noise.
        drop_unused: whether the final architecture leaves out (`[]`) a `LayerChoice` that some `InputChoice` names and none
            takes, so that it is not computed. `mutorch.export` needs a candidate everywhere: give `False` for it.

    Attributes:
        choices: the architecture parameters; `alpha(key)` gives one by its key.

    Example:
        >>> net = nn.Sequential(LayerChoice({"tanh": nn.Tanh(), "relu": nn.ReLU()}, key="act"))
        >>> mutator = DartsMutator(net)
        >>> mutator.reset()
        >>> _ = net(torch.ones(1)).sum().backward()
        >>> tuple(mutator.alpha("act").grad.shape), [tuple(p.shape) for p in mutator.parameters()]
        ((3,), [(3,)])
    """

    def __init__(self, model: nn.Module, *, seed: int = 0, drop_unused: bool = True) -> None:
        super().__init__(model)
        self.drop_unused = drop_unused
        generator = torch.Generator().manual_seed(seed)
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        self.choices = nn.ParameterDict()
        for choice in self._layers():
            values = 1e-3 * torch.randn(len(choice) + 1, generator=generator)
            self.choices[attribute(str(choice.key))] = nn.Parameter(values.to(device))

    def alpha(self, key: str) -> nn.Parameter:
        """The architecture parameter of a key: one value for each candidate, and one for no operation."""
        parameter: nn.Parameter = self.choices[attribute(key)]
        return parameter

    def sample_search(self) -> dict[str, Tensor]:
        masks = {str(choice.key): torch.softmax(self.alpha(str(choice.key)), dim=-1)[:-1] for choice in self._layers()}
        return masks | {str(choice.key): torch.ones(choice.n_candidates, dtype=torch.bool) for choice in self._inputs()}

    @torch.no_grad()
    def sample_final(self) -> dict[str, Tensor]:
        weights = {
            str(choice.key): torch.softmax(self.alpha(str(choice.key)), dim=-1)[:-1] for choice in self._layers()
        }
        masks = {key: one_hot([int(weight.argmax())], len(weight)) for key, weight in weights.items()}
        strengths = {key: float(weight.max()) for key, weight in weights.items()}
        named, taken = set[str](), set[str]()
        for choice in self._inputs():
            count = choice.n_candidates if choice.n_chosen is None else choice.n_chosen
            numbers = sorted(range(choice.n_candidates), key=lambda n: -self._strength(choice, n, strengths))[:count]
            masks[str(choice.key)] = one_hot(numbers, choice.n_candidates)
            named.update(choice.choose_from)
            taken.update(choice.choose_from[number] for number in numbers)
        for key in named - taken if self.drop_unused else ():
            if key in weights:
                masks[key] = torch.zeros_like(masks[key])
        return masks

    def _strength(self, choice: InputChoice, number: int, strengths: dict[str, float]) -> float:
        source = choice.choose_from[number]
        if source not in strengths and choice.n_chosen not in (None, choice.n_candidates):
            warnings.warn(
                f"{choice._describe()} ranks its inputs by the LayerChoices that make them, and input {number} has the key "
                f"{source!r}, which is none: it comes last",
                stacklevel=3,
            )
        return strengths.get(source, 0.0)

    def _layers(self) -> list[LayerChoice]:
        return [mutable for mutable in self.choosers if isinstance(mutable, LayerChoice)]

    def _inputs(self) -> list[InputChoice]:
        return [mutable for mutable in self.choosers if isinstance(mutable, InputChoice)]
