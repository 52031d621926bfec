"""The recurrent network that proposes architectures in ENAS (arXiv 1802.03268, section 2)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Kind = tuple[str, ...]
"""The names of the candidates of a `LayerChoice`: equal names, one head."""


@dataclass(slots=True)
class Memory:
    """What the controller remembers of the decisions so far.

    Attributes:
        states: hidden state and cell of each LSTM.
        input: what the next step reads: the last decision.
    """

    states: list[tuple[Tensor, Tensor]]
    input: Tensor

    @property
    def top(self) -> Tensor:
        """The hidden state of the last LSTM."""
        return self.states[-1][0]


class EnasController(nn.Module):
    """Stacked LSTMs that give logits, one decision after the other, and read what was decided.

    Candidates are scored by a linear layer, and what was taken is embedded; choices whose candidates have the same names
    share both. Inputs are scored by attention to their anchors. All parameters begin uniform in [-0.1, 0.1].

    Args:
        kinds: of the choices that will be decided.
        num_unnamed: how many inputs without a key a choice has at most; each position has a learned anchor.
        size, num_layers: of the LSTMs.
        tanh_constant: logits become c * tanh(logits); `None`: they stay.
        temperature: what logits are divided by, before that.
        generator: draws the initial parameters.

    Example:
        >>> controller = EnasController([("conv", "pool")], 0, 8, 1, 1.5, None, torch.Generator().manual_seed(0))
        >>> memory = controller.start()
        >>> controller.candidate_logits(memory, ("conv", "pool")).shape
        torch.Size([2])
    """

    def __init__(
        self,
        kinds: Iterable[Kind],
        num_unnamed: int,
        size: int,
        num_layers: int,
        tanh_constant: float | None,
        temperature: float | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.tanh_constant, self.temperature = tanh_constant, temperature
        self._kinds = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
        with torch.device("meta"):  # so that torch's own generator is not asked for values
            self.lstms = nn.ModuleList(nn.LSTMCell(size, size, bias=False) for _ in range(num_layers))
            self.heads = nn.ModuleList(nn.Linear(size, len(kind), bias=False) for kind in self._kinds)
            self.embeddings = nn.ModuleList(nn.Embedding(len(kind), size) for kind in self._kinds)
            self.anchor = nn.Linear(size, size, bias=False)
            self.query = nn.Linear(size, size, bias=False)
            self.score = nn.Linear(size, 1, bias=False)
            self.first_input = nn.Parameter(torch.empty(size))
            self.unnamed = nn.Parameter(torch.empty(num_unnamed, size))
        self.to_empty(device="cpu")
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)

    def start(self) -> Memory:
        """Nothing decided yet."""
        zero = torch.zeros_like(self.first_input)
        return Memory([(zero, zero)] * len(self.lstms), self.first_input)

    def step(self, memory: Memory) -> Tensor:
        """One step of the LSTMs; gives the new `memory.top`."""
        x = memory.input
        for number, lstm in enumerate(self.lstms):
            memory.states[number] = lstm(x, memory.states[number])
            x = memory.states[number][0]
        return x

    def candidate_logits(self, memory: Memory, kind: Kind) -> Tensor:
        """A step, and a logit for each candidate."""
        return self._bounded(self.heads[self._kinds[kind]](self.step(memory)))

    def input_scores(self, memory: Memory, anchors: Sequence[Tensor]) -> Tensor:
        """A score for each input by its anchor."""
        mixed = torch.tanh(self.anchor(torch.stack(list(anchors))) + self.query(memory.top))
        return self._bounded(self.score(mixed).squeeze(-1))

    def took(self, memory: Memory, kind: Kind, number: int) -> None:
        """Let the next step read which candidate was taken."""
        memory.input = self.embeddings[self._kinds[kind]].weight[number]  # type: ignore[index]

    def _bounded(self, logits: Tensor) -> Tensor:
        logits = logits if self.temperature is None else logits / self.temperature
        return logits if self.tanh_constant is None else self.tanh_constant * torch.tanh(logits)
