"""Masks that a recurrent controller draws."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mutorch.errors import ChoiceError, MissingDecisionError, nearest
from mutorch.mutables import Chooser, InputChoice, LayerChoice
from mutorch.mutables.inputs import NO_KEY

from .enas_controller import EnasController
from .enas_walk import Drawn, Given, Inside, Likeliest, Picks, Walk
from .groups import walk
from .mask_format import decode, encode
from .mask_mutator import MaskMutator

REDUCTIONS = ("sum", "mean")
FINALS = ("likeliest", "sample")


class EnasMutator(MaskMutator):
    """A controller that draws architectures and can be trained by how good they are (ENAS, arXiv 1802.03268; seed 004).

    An LSTM decides one choice after the other, in the order of the model, and reads each decision: of a `LayerChoice` one
    candidate, of an `InputChoice` one input by attention (`n_chosen=1`), or each input by itself (`n_chosen=None`). What stands
    in a candidate that was not taken is not asked about, and has its default. Attention is to anchors: of a scope, the
    controller's state when it is left; of a choice, that in which it was decided, and what; an input without a key has a
    learned anchor for its position. What is drawn comes from a generator of its own.

    Args:
        model: see `BaseMutator`.
        lstm_size, lstm_num_layers: of the controller.
        tanh_constant: bounds logits to plus or minus this; `None`: they are not.
        cell_exit_extra_step: whether the controller takes a step when it leaves a scope.
        skip_target: how probable an input should be where any number is taken; see `sample_skip_penalty`.
        temperature: what logits are divided by.
        branch_bias: added to the logits of candidates that are convolutions by the name of their class, and subtracted from
            those of others, in every `LayerChoice` with `reduce` in its key.
        entropy_reduction: `"sum"` or `"mean"` of the entropies of inputs that are drawn each by itself.
        seed: of the initial parameters and of what is drawn.
        final: what `sample_final` and so `export` give: `"likeliest"`, the same each time, takes the most probable candidate
            of each decision after the other, and every input that is more probable than not; `"sample"` draws anew.

    Attributes:
        controller: its parameters are those of the mutator.
        generator: what is drawn comes from it; its state is in the `state_dict`.
        sample_log_prob: the log-probability of the last sample, never above 0. (The older library has its negative under
            this name.)
        sample_entropy: the entropies of the distributions that the last sample was drawn from, added up.
        sample_skip_penalty: KL(p, skip_target) over all inputs drawn by themselves, with the p they were drawn by. All three
            are scalars with gradients, unless drawn under `torch.no_grad`.

    Errors:
        ChoiceError: an `InputChoice` with `n_chosen` other than 1 and `None`; another `entropy_reduction` or `final`; a
            `skip_target` that is no probability between 0 and 1 (also `AssertionError`).

    Example:
        >>> net = nn.Sequential(LayerChoice({"tanh": nn.Tanh(), "relu": nn.ReLU()}, key="act"))
        >>> mutator = EnasMutator(net, seed=1)
        >>> mutator.reset()
        >>> mutator.status(), f"{mutator.sample_log_prob.exp():.2f}"
        ({'act': [False, True]}, '0.50')
        >>> (-mutator.sample_log_prob).backward()  # a step along this makes what was drawn more probable
    """

    def __init__(
        self,
        model: nn.Module,
        lstm_size: int = 64,
        lstm_num_layers: int = 1,
        tanh_constant: float | None = 1.5,
        cell_exit_extra_step: bool = False,
        skip_target: float = 0.4,
        temperature: float | None = None,
        branch_bias: float = 0.25,
        entropy_reduction: Literal["sum", "mean"] = "sum",
        *,
        seed: int = 0,
        final: Literal["likeliest", "sample"] = "likeliest",
    ) -> None:
        _check(entropy_reduction, final, skip_target)
        super().__init__(model)
        self.cell_exit_extra_step, self.skip_target = cell_exit_extra_step, skip_target
        self.entropy_reduction: Literal["sum", "mean"] = entropy_reduction
        self.final = final
        self.generator = torch.Generator().manual_seed(seed)
        layers = [choice for choice in self.choosers if isinstance(choice, LayerChoice)]
        inputs = [choice for choice in self.choosers if isinstance(choice, InputChoice)]
        self._check_counts(inputs)
        self.controller = EnasController(
            [tuple(choice.names) for choice in layers],
            max((choice.choose_from.count(NO_KEY) for choice in inputs), default=0),
            lstm_size,
            lstm_num_layers,
            tanh_constant,
            temperature,
            self.generator,
        )
        self._places = _places(self.model)
        reducing = [choice for choice in layers if "reduce" in str(choice.key)]
        self._bias = {str(choice.key): _conv_bias(choice, branch_bias) for choice in reducing}
        self.sample_log_prob = self.sample_entropy = self.sample_skip_penalty = torch.zeros(())

    def sample_search(self) -> dict[str, Tensor]:
        """A new sample; what it took is in `sample_log_prob`, `sample_entropy` and `sample_skip_penalty`."""
        walked = self._walked(Drawn(self.generator))
        self.sample_log_prob, self.sample_entropy = walked.log_prob, walked.entropy
        self.sample_skip_penalty = walked.skip_penalty
        return walked.masks

    @torch.no_grad()
    def sample_final(self) -> dict[str, Tensor]:
        """The likeliest architecture, or a sample, as `final` says."""
        return self._walked(Likeliest() if self.final == "likeliest" else Drawn(self.generator)).masks

    @torch.no_grad()
    def likeliest(self) -> dict[str, Any]:
        """The architecture of the most probable choice of each decision after the other; see `final`."""
        return self._encoded(self._walked(Likeliest()).masks)

    @torch.no_grad()
    def sample(self) -> dict[str, Any]:
        """A new sample as an architecture; what the model computes, and what the last sample was, stay as they are."""
        return self._encoded(self._walked(Drawn(self.generator)).masks)

    def log_prob(self, architecture: Mapping[str, Any]) -> Tensor:
        """The log-probability that an architecture is drawn, with a gradient.

        Errors:
            MissingDecisionError: an architecture without one of the keys (also `KeyError`).
            ChoiceError: a choice that there is not.

        Example:
            >>> mutator = EnasMutator(nn.Sequential(LayerChoice({"tanh": nn.Tanh(), "relu": nn.ReLU()}, key="act")))
            >>> f"{sum(mutator.log_prob({'act': name}).exp() for name in ('tanh', 'relu')):.3f}"
            '1.000'
        """
        masks = {}
        for choice in self.choosers:
            key = str(choice.key)
            if key not in architecture:
                raise MissingDecisionError(f"the architecture leaves out {key!r}; it has {list(architecture)}")
            masks[key] = decode(choice, architecture[key])
        return self._walked(Given(masks)).log_prob

    def architecture(self) -> dict[str, Any]:
        """The last sample as an architecture of `space`.

        Errors:
            UndecidedError: `reset()` was not called.
        """
        return self._encoded({str(choice.key): self.mask_of(choice) for choice in self.choosers})

    def get_extra_state(self) -> Tensor:
        """The state of the generator."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on drawing where `get_extra_state` was taken."""
        self.generator.set_state(state.cpu())

    def _encoded(self, masks: Mapping[str, Tensor]) -> dict[str, Any]:
        return {str(choice.key): encode(choice, masks[str(choice.key)]) for choice in self.choosers}

    def _walked(self, picks: Picks) -> Walk:
        walked = Walk(
            self.controller,
            picks,
            self._places,
            self._bias,
            self.skip_target,
            self.entropy_reduction,
            self.cell_exit_extra_step,
        )
        walked.visit(self.mutables)
        return walked

    def _check_counts(self, inputs: list[InputChoice]) -> None:
        for choice in inputs:
            if choice.n_chosen not in (None, 1):
                self.unbind()
                raise ChoiceError(
                    f"{choice._describe()} takes n_chosen={choice.n_chosen} inputs, expected 1 or None: the controller draws "
                    "one, or each by itself"
                )


def _check(entropy_reduction: str, final: str, skip_target: float) -> None:
    if entropy_reduction not in REDUCTIONS:
        raise ChoiceError(
            f"EnasMutator has no entropy_reduction {entropy_reduction!r}; {nearest(entropy_reduction, REDUCTIONS)}"
        )
    if final not in FINALS:
        raise ChoiceError(f"EnasMutator has no final {final!r}; {nearest(final, FINALS)}")
    if not 0 < skip_target < 1:
        raise ChoiceError(f"skip_target is a probability between 0 and 1, got {skip_target}")


def _places(model: nn.Module) -> dict[str, list[Inside]]:
    """Key to the candidates that its mutables sit in."""
    choices: dict[str, LayerChoice] = {}
    places: dict[str, list[Inside]] = {}
    for path, module, inside in walk(model):
        if isinstance(module, Chooser):
            around = [(choices[parent], label) for parent, label in inside if parent in choices]
            entry = tuple((str(parent.key), parent.choices.index(label)) for parent, label in around)
            places.setdefault(str(module.key), []).append(entry)
        if isinstance(module, LayerChoice):
            choices[path] = module
    return places


def _conv_bias(choice: LayerChoice, bias: float) -> list[float]:
    return [bias if "conv" in type(candidate).__name__.lower() else -bias for candidate in choice]
