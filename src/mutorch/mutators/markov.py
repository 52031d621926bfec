"""Probabilities of widths: each group of channels stays only if the one before it does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ChoiceError, LoadError, SpaceError, nearest
from mutorch.mutables import BaseMutable
from mutorch.space import Architecture, Choice, RandomSource, as_random

from .mutator import Mutator


class MarkovWidths:
    """A distribution over the widths of a model that a gradient can change (DMCP, Guo et al. 2020, arXiv 2005.03354).

    The widths of a unit, ascending, are states of a Markov chain: from one the chain goes on to the next with probability
    `exp(-max(a, 0))`, where `a` is an architecture parameter, or stays. All parameters begin at 0: every channel is kept.
    Units are independent of each other. Decisions that are no widths, or have one choice, are left aside.

    Args:
        mutator: of the model; every width decision of its space is learned.

    Attributes:
        parameters: the parameters by the number of the unit, as text: `'0'`, `'1'`.
        choices: unit to its choices, ascending, as the space spells them.
        counts: unit to the numbers of channels that these are.

    Errors:
        SpaceError: no widths, or constraints between decisions, which independent units would break.

    Example:
        >>> from mutorch.channels import searchable, widths
        >>> net = searchable(nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 2)), torch.zeros(1, 2), rules=[
        ...     widths(counts=(2, 4, 8), divisor=1)])
        >>> chains = MarkovWidths(Mutator(net))
        >>> with torch.no_grad():
        ...     _ = chains["0"].copy_(torch.tensor([0.0, 0.693147]))  # 2 to 4 for certain, 4 to 8 every second time
        >>> [round(p, 3) for p in chains.probabilities()["0"].tolist()], round(float(chains.expected()["0"].detach()), 2)
        ([0.0, 0.5, 0.5], 6.0)
    """

    def __init__(self, mutator: Mutator) -> None:
        if mutator.space.constraints:
            raise SpaceError(
                f"probabilities of widths are independent of each other, and would break the {len(mutator.space.constraints)} "
                "constraints of this space; make a Mutator without them"
            )
        self._members: dict[str, list[Any]] = {}
        self.choices: dict[str, tuple[Any, ...]] = {}
        self.counts: dict[str, tuple[int, ...]] = {}
        for name, members in mutator.search_groups.items():
            if members[0].mutable_prefix == "channel" and len(mutator.space[name].choices) > 1:
                channels = [_channels(member) for member in members]
                by_count = sorted((channels[0]._count_of(choice), choice) for choice in mutator.space[name].choices)
                self._members[name] = channels
                self.counts[name] = tuple(count for count, _ in by_count)
                self.choices[name] = tuple(choice for _, choice in by_count)
        if not self.choices:
            raise SpaceError(
                f"this space has no decision about a number of channels; its decisions: {list(mutator.space.names)}"
            )
        device = next((p.device for p in mutator.model.parameters()), torch.device("cpu"))
        self.parameters = nn.ParameterDict(
            {
                str(number): nn.Parameter(torch.zeros(len(counts) - 1, device=device))
                for number, counts in enumerate(self.counts.values())
            }
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The decisions whose widths have probabilities."""
        return tuple(self.choices)

    def __getitem__(self, name: str) -> nn.Parameter:
        """The parameter of a unit: one number for each step to a wider one.

        Errors:
            SpaceError: no such unit.
        """
        if name not in self.choices:
            raise SpaceError(f"decision {name!r} has no probabilities of widths; {nearest(name, self.names)}")
        parameter: nn.Parameter = self.parameters[str(self.names.index(name))]
        return parameter

    @property
    def is_learned(self) -> bool:
        """Whether any parameter has left its beginning."""
        return any(bool(parameter.detach().any()) for parameter in self.parameters.values())

    # ---- probabilities, with gradients -------------------------------------------------------------------------------

    def kept(self, name: str) -> Tensor:
        """The probability that a unit has at least each of its widths but the smallest: falling."""
        return torch.exp(-self[name].clamp(min=0)).cumprod(0)

    def probabilities(self) -> dict[str, Tensor]:
        """Unit to the probabilities of its choices, in the order of `choices`; float64."""
        found = {}
        for name in self.names:
            kept = self.kept(name).double()
            reached = torch.cat([kept.new_ones(1), kept, kept.new_zeros(1)])
            found[name] = reached[:-1] - reached[1:]
        return found

    def expected(self) -> dict[str, Tensor]:
        """Unit to its expected number of channels."""
        found = {}
        for name, counts in self.counts.items():
            steps = torch.tensor(counts, device=self[name].device).diff()
            found[name] = counts[0] + (steps * self.kept(name)).sum()
        return found

    def scales(self) -> dict[int, Tensor]:
        """By the id of a channel mutable, the probability of each of its channels to be kept."""
        found = {}
        for name, counts in self.counts.items():
            kept = self.kept(name)
            steps = torch.tensor(counts, device=kept.device).diff()
            ranked = torch.cat([kept.new_ones(counts[0]), kept.repeat_interleave(steps)])
            for channels in self._members[name]:
                scale = torch.cat([ranked, ranked.new_zeros(channels.num_channels - len(ranked))])
                order = torch.tensor(channels.order, device=scale.device)
                found[id(channels)] = torch.empty_like(scale).index_copy(0, order, scale)
        return found

    def unread(self, read: Collection[int]) -> list[str]:
        """The units none of whose channel mutables has its id among `read`."""
        return [name for name, members in self._members.items() if not any(id(member) in read for member in members)]

    def log_probability(self, architecture: Mapping[str, Choice]) -> Tensor:
        """The log-probability of the widths of an architecture; decisions that are no widths do not count.

        Errors:
            ChoiceError: a width that its unit does not have.
        """
        probabilities = self.probabilities()
        found = [p[self._number(name, architecture[name])].log() for name, p in probabilities.items()]
        return torch.stack(found).sum()

    def _number(self, name: str, choice: Any) -> int:
        if choice not in self.choices[name]:
            raise ChoiceError(f"unit {name!r} has no choice {choice!r}; {nearest(choice, self.choices[name])}")
        return self.choices[name].index(choice)

    # ---- architectures -----------------------------------------------------------------------------------------------

    def sample(self, rng: RandomSource) -> Architecture:
        """Widths drawn by the probabilities: each chain walks until it stays."""
        random = as_random(rng)
        found: Architecture = {}
        for name, choices in self.choices.items():
            going_on = torch.exp(-self[name].detach().clamp(min=0)).tolist()
            number = 0
            while number < len(going_on) and random.random() <= going_on[number]:
                number += 1
            found[name] = choices[number]
        return found

    def nearest(self) -> Architecture:
        """The widths that are nearest to the expected ones; of two, the smaller one."""
        found: Architecture = {}
        for name, expected in self.expected().items():
            distances = [abs(count - float(expected.detach())) for count in self.counts[name]]
            found[name] = self.choices[name][distances.index(min(distances))]
        return found

    # ---- state -------------------------------------------------------------------------------------------------------

    def project_(self) -> None:
        """Set negative parameters to 0, which mean the same: below 0, no gradient would bring them back."""
        with torch.no_grad():
            for parameter in self.parameters.values():
                parameter.clamp_(min=0)

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by unit."""
        return {name: self[name].detach().clone() for name in self.names}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over the parameters of `state`.

        Errors:
            LoadError: other units, or other numbers of widths; nothing is changed.
        """
        own = {name: tuple(self[name].shape) for name in self.names}
        given = {name: tuple(values.shape) for name, values in state.items()}
        for name in own | given:
            if own.get(name) != given.get(name):
                raise LoadError(
                    f"the parameter of unit {name!r} has shape {own.get(name)} here and {given.get(name)} in the state "
                    "(None: there is none); they belong to different spaces"
                )
        with torch.no_grad():
            for name, values in state.items():
                self[name].copy_(values)


def group_widths(num_channels: int, pruning_cfg: Sequence[float] = (0.1, 1, 0.05)) -> tuple[int, int, int]:
    """How DMCP divides channels: the size of a group, how many groups there are, and how many channels always stay.

    Args:
        pruning_cfg: smallest and largest share of the channels that are kept, and the share of a group.

    Errors:
        ChoiceError: shares out of range.

    Example:
        >>> group_widths(64), group_widths(24), group_widths(8)
        ((3, 18, 10), (1, 18, 6), (0, 18, 8))
    """
    least, most, step = _shares(pruning_cfg)
    size = int(step * num_channels / most + 1e-9)
    number = int((most - least) / step + 1e-4)
    remaining = num_channels - size * number
    if remaining < 1:
        raise ChoiceError(
            f"pruning_cfg {tuple(pruning_cfg)} leaves no channel of {num_channels} that always stays; raise the smallest share"
        )
    return size, number, remaining


def _shares(pruning_cfg: Any) -> tuple[float, float, float]:
    shares = tuple(pruning_cfg) if isinstance(pruning_cfg, Sequence) and not isinstance(pruning_cfg, str) else ()
    if len(shares) != 3 or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in shares):
        raise ChoiceError(f"pruning_cfg is (smallest share, largest share, step), got {pruning_cfg!r}")
    least, most, step = shares
    if not (0 <= least < most <= 1 and 0 < step <= most - least):
        raise ChoiceError(
            f"pruning_cfg needs 0 <= smallest share < largest share <= 1 and a step of at most their difference, got {shares}"
        )
    return least, most, step


def _channels(member: BaseMutable[Any, Any]) -> Any:
    """The channel mutable of a unit, or the mutable itself."""
    return getattr(member, "mutable_channel", member)
