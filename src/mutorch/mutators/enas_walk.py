"""One pass of the ENAS controller over the choices of a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mutorch.mutables import InputChoice, LayerChoice, MutableScope
from mutorch.mutables.inputs import NO_KEY
from mutorch.mutables.masks import one_hot

from .enas_controller import EnasController, Memory
from .mask_format import decode
from .mutable_tree import StructuredMutableTreeNode

Inside = tuple[tuple[str, int], ...]
"""Keys of choices, and the position of the candidate of each that must be taken."""


class Picks(Protocol):
    """How a choice is made of probabilities."""

    def one(self, key: str, probabilities: Tensor) -> int:
        """One position."""

    def some(self, key: str, probabilities: Tensor) -> Tensor:
        """A bool for each position."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Choices drawn by their probabilities."""

    generator: torch.Generator

    def one(self, key: str, probabilities: Tensor) -> int:
        return int(torch.multinomial(probabilities, 1, generator=self.generator))

    def some(self, key: str, probabilities: Tensor) -> Tensor:
        return torch.rand(len(probabilities), generator=self.generator) < probabilities


class Likeliest:
    """The most probable choice of each decision; of any number, inputs more probable than not."""

    def one(self, key: str, probabilities: Tensor) -> int:
        return int(probabilities.argmax())

    def some(self, key: str, probabilities: Tensor) -> Tensor:
        return probabilities > 0.5


@dataclass(frozen=True, slots=True)
class Given:
    """Choices that were made before."""

    masks: Mapping[str, Tensor]

    def one(self, key: str, probabilities: Tensor) -> int:
        return int(self.masks[key].int().argmax())

    def some(self, key: str, probabilities: Tensor) -> Tensor:
        return self.masks[key]


@dataclass(slots=True)
class Walk:
    """Decides all choices below a node, in the order of the model.

    Args:
        places: key to the candidates that its mutables sit in, one entry for each of them.
        bias: key to what is added to its logits.
        skip_target: how probable an input should be, where any number is taken.
        reduce: what becomes of the entropies of draws that are independent.
        extra_step: whether the controller takes a step when it leaves a scope.

    Attributes:
        masks: key to decision.
        log_prob, entropy, skip_penalty: sums so far.
    """

    controller: EnasController
    picks: Picks
    places: Mapping[str, list[Inside]]
    bias: Mapping[str, list[float]]
    skip_target: float
    reduce: Literal["sum", "mean"]
    extra_step: bool
    masks: dict[str, Tensor] = field(default_factory=dict)
    memory: Memory = field(init=False)
    log_prob: Tensor = field(init=False)
    entropy: Tensor = field(init=False)
    skip_penalty: Tensor = field(init=False)
    _anchors: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.memory = self.controller.start()
        self.log_prob = self.entropy = self.skip_penalty = self.controller.first_input.new_zeros(())

    def visit(self, node: StructuredMutableTreeNode) -> None:
        """Decide what stands at a node and below it."""
        mutable = node.mutable
        key = "" if mutable is None else str(mutable.key)
        if isinstance(mutable, LayerChoice | InputChoice) and key not in self.masks:
            self._decide(mutable, key)
        for child in node.children:
            self.visit(child)
        if isinstance(mutable, MutableScope) and key not in self._anchors:
            if self.extra_step:
                self.controller.step(self.memory)
            self._anchors[key] = self.memory.top

    def _decide(self, mutable: LayerChoice | InputChoice, key: str) -> None:
        if mutable.is_fixed:
            self.masks[key] = decode(mutable, mutable.current_choice)
        elif not self._matters(key):
            self.masks[key] = decode(mutable, mutable.default_choice)
        else:
            self.masks[key] = self._picked(mutable, key)
            # Where it was decided, and what: steps later on would give all earlier choices much the same state.
            self._anchors[key] = self.memory.top + self.memory.input

    def _picked(self, mutable: LayerChoice | InputChoice, key: str) -> Tensor:
        if isinstance(mutable, LayerChoice):
            return self._candidate(mutable, key)
        self.controller.step(self.memory)  # reads the last decision
        anchors = [self._anchor(mutable, number) for number in range(mutable.n_candidates)]
        scores = self.controller.input_scores(self.memory, anchors)
        return (self._one_input if mutable.n_chosen == 1 else self._some_inputs)(key, scores, torch.stack(anchors))

    def _matters(self, key: str) -> bool:
        """Whether some mutable of this key is computed, as far as that is decided."""
        return any(
            all(parent not in self.masks or bool(self.masks[parent][number]) for parent, number in inside)
            for inside in self.places[key]
        )

    def _candidate(self, mutable: LayerChoice, key: str) -> Tensor:
        kind = tuple(mutable.names)
        logits = self.controller.candidate_logits(self.memory, kind)
        if key in self.bias:
            logits = logits + logits.new_tensor(self.bias[key])
        number = self._pick_one(key, logits)
        self.controller.took(self.memory, kind, number)
        return one_hot([number], len(kind))

    def _one_input(self, key: str, scores: Tensor, anchors: Tensor) -> Tensor:
        number = self._pick_one(key, scores)
        self.memory.input = anchors[number]
        return one_hot([number], len(scores))

    def _pick_one(self, key: str, logits: Tensor) -> int:
        logs = torch.log_softmax(logits, dim=-1)
        number = self.picks.one(key, logs.detach().exp().cpu())
        self.log_prob = self.log_prob + logs[number]
        self.entropy = self.entropy - (logs.exp() * logs).sum()
        return number

    def _some_inputs(self, key: str, scores: Tensor, anchors: Tensor) -> Tensor:
        """Each input is a choice of its own, between logits -s and s: sigmoid(2 s) is its probability."""
        yes, no = F.logsigmoid(2 * scores), F.logsigmoid(-2 * scores)
        mask = self.picks.some(key, yes.detach().exp().cpu())
        taken = mask.to(scores.device)
        self.log_prob = self.log_prob + torch.where(taken, yes, no).sum()
        p, q = yes.exp(), no.exp()
        entropies = -(p * yes + q * no)
        self.entropy = self.entropy + (entropies.sum() if self.reduce == "sum" else entropies.mean())
        target = scores.new_tensor(self.skip_target)
        self.skip_penalty = self.skip_penalty + (p * (yes - target.log()) + q * (no - torch.log1p(-target))).sum()
        self.memory.input = (anchors * taken[:, None]).sum(dim=0) / (1 + taken.sum())
        return mask

    def _anchor(self, mutable: InputChoice, number: int) -> Tensor:
        key = mutable.choose_from[number]
        if key == NO_KEY:
            return self.controller.unnamed[mutable.choose_from[:number].count(NO_KEY)]
        if key not in self._anchors:
            self._anchors[key] = self.controller.step(self.memory)
        return self._anchors[key]
