"""A mutator whose widths have probabilities that are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mutorch.channels import DMCPChannelUnit, MutableChannelUnit
from mutorch.errors import ChoiceError, ConfigError, StateError, nearest
from mutorch.mutables import MutableChannelContainer, Relaxation
from mutorch.ops import DMCPBatchNorm2d, DynamicOp
from mutorch.space import Architecture, RandomSource, as_random

from .arch_params import NoArchParamsError
from .channel_mutator import ChannelMutator
from .markov import MarkovWidths, group_widths

MODES = ("max", "min", "random", "direct", "expected", "arch_random", "default")
"""What `sample_choices` and `sample_subnet` of a `DMCPChannelMutator` draw; see there."""


class DMCPChannelMutator(ChannelMutator):
    """A `ChannelMutator` of `DMCPChannelUnit`s whose widths are a Markov chain (DMCP, Guo et al. 2020, arXiv 2005.03354).

    Channels come in groups after some that always stay; a group stays only if the one before it does. The probabilities are
    those of `markov`, a `MarkovWidths`, which also works for `mutorch.searchable` models: this class is the older library's
    spelling of it.

    Args:
        channel_unit_cfg: as for `ChannelMutator`, of `DMCPChannelUnit`s.
        parse_cfg, init_cfg: see `ChannelMutator`.
        pruning_cfg: the smallest and the largest share of its channels that a unit keeps, and the share of a group. A unit
            that is too small for one channel a group keeps its width.

    Attributes:
        markov: the probabilities, once there is a model.

    Errors:
        ChoiceError: a `pruning_cfg` that is out of range.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 40, 1), nn.BatchNorm2d(40), nn.Conv2d(40, 4, 1)).eval()
        >>> mutator = DMCPChannelMutator(parse_cfg={"type": "ChannelAnalyzer", "demo_input": (1, 3, 4, 4)})
        >>> mutator.prepare_from_supernet(model)
        >>> mutator.min_choices, len(mutator.arch_params["0"])
        ({'0_(0, 40)_40': 4}, 18)
        >>> _ = mutator.arch_params["0"].data.fill_(0.1)
        >>> mutator.sample_subnet("expected")
        >>> mutator.current_choices, mutator.units[0].mutable_channel.activated_tensor_channels.requires_grad
        ({'0_(0, 40)_40': 20}, True)
    """

    def __init__(
        self,
        channel_unit_cfg: type[MutableChannelUnit] | str | Mapping[str, Any] = DMCPChannelUnit,
        parse_cfg: Any = None,
        pruning_cfg: Sequence[float] = (0.1, 1, 0.05),
        init_cfg: Any = None,
    ) -> None:
        super().__init__(channel_unit_cfg, parse_cfg, init_cfg)
        if not issubclass(self.unit_class, DMCPChannelUnit):
            raise ConfigError(f"a DMCPChannelMutator has DMCPChannelUnits, got {self.unit_class.__name__}")
        group_widths(1000, pruning_cfg)  # out of range is an error now, not with the first model
        self.pruning_cfg = tuple(pruning_cfg)
        self._markov: MarkovWidths | None = None

    def prepare_from_supernet(self, model: nn.Module) -> None:
        """As in `ChannelMutator`; then every parameter is 0, which keeps all channels.

        Errors:
            SpaceError: no unit is large enough for groups.
        """
        super().prepare_from_supernet(model)
        self._markov = MarkovWidths(self)

    def _found(self, model: nn.Module) -> list[MutableChannelUnit]:
        units = super()._found(model)
        for unit in units:
            cast("DMCPChannelUnit", unit).set_groups(*group_widths(unit.num_channels, self.pruning_cfg))
        return units

    # ---- parameters --------------------------------------------------------------------------------------------------

    @property
    def markov(self) -> MarkovWidths:
        """The probabilities of widths.

        Errors:
            NoArchParamsError: there is no model yet (also `AttributeError`).
        """
        if self._markov is None:
            raise NoArchParamsError("there are no architecture parameters yet; call prepare_from_supernet(model) first")
        return self._markov

    def prepare_arch_params(self, *, seed: int = 0, relaxation: Relaxation | None = None) -> None:
        """Set every parameter to 0 again. Nothing is random, and nothing is relaxed: the arguments do nothing."""
        with torch.no_grad():
            for parameter in self.arch_parameters():
                parameter.zero_()

    @property
    def arch_params(self) -> nn.ParameterDict:
        """The parameters by the number of the unit, as text, among those that are large enough for groups."""
        return self.markov.parameters

    def arch_parameters(self) -> list[nn.Parameter]:
        """The parameters, for an optimizer of their own."""
        return list(self.markov.parameters.values())

    def probabilities(self) -> dict[str, Tensor]:
        """Unit to the probabilities of its choices, on the CPU."""
        return {name: p.detach().cpu() for name, p in self.markov.probabilities().items()}

    def state_dict(self) -> dict[str, Any]:
        """Parameters and choices: with the model's `state_dict`, all that a search needs to go on."""
        return {"arch_params": self.markov.state_dict(), "choices": self.current_choices}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Errors:
            LoadError: parameters of another space.
        """
        self.markov.load_state_dict(state["arch_params"])
        self.set_choices(state["choices"])

    # ---- architectures -----------------------------------------------------------------------------------------------

    def sample_choices(self, kind: Any = "random", *, rng: RandomSource | None = None) -> Architecture:
        """Widths: `'max'` (`'default'`), `'min'`, `'random'` (every width is as probable as the others), `'direct'` (by the
        probabilities), `'expected'` (the nearest to the expected ones), or `'arch_random'`: direct once anything was learned,
        random before.

        Args:
            rng: a seed or a `random.Random`; `None` draws from a new generator, so the result cannot be repeated.

        Errors:
            ChoiceError: another kind.
        """
        if kind not in MODES:
            raise ChoiceError(f"no kind {kind!r}; {nearest(kind, MODES)}")
        if kind == "arch_random":
            kind = "direct" if self.markov.is_learned else "random"
        if kind == "direct":
            return {**self.space.default, **self.markov.sample(as_random(rng))}
        if kind == "expected":
            return {**self.space.default, **self.markov.nearest()}
        return super().sample_choices(kind, rng=rng)

    def sample_subnet(self, mode: str, arch_train: bool = False, *, rng: RandomSource | None = None) -> None:
        """Draw widths and make them current; tell channels and norms what they need for a step of that kind.

        `activated_tensor_channels` of every unit's channels becomes their number as a tensor: for `'expected'` the expected
        number, with a gradient, else that of the channels that are active.

        Args:
            mode: see `sample_choices`.
            arch_train: see `modify_supernet_forward`.
            rng: see `sample_choices`.

        Errors:
            ChoiceError: no such mode.
        """
        self.set_choices(self.sample_choices(mode, rng=rng))
        expected = self.markov.expected() if mode == "expected" else {}
        for unit in self.mutable_units:
            count = torch.tensor(float(unit.mutable_channel.activated_channels))
            unit.mutable_channel.activated_tensor_channels = expected.get(unit.name, count)
        self.modify_supernet_forward(arch_train)

    def modify_supernet_forward(self, arch_train: bool) -> None:
        """Let the 2d batch norms of all units scale channels by the probability that they stay, or stop it.

        Errors:
            StateError: a norm over channels that are not in the units' order, or repeated.
        """
        for unit in self.mutable_units:
            for channel in unit.output_related:
                if isinstance(channel.module, DMCPBatchNorm2d):
                    channel.module.set_forward_args(None, None)
        if not arch_train:
            return
        of_channels = {id(unit.mutable_channel): unit for unit in self.mutable_units}
        for unit in self.mutable_units:
            for channel in unit.output_related:
                if isinstance(channel.module, DMCPBatchNorm2d) and channel.module.arch_param is None:
                    channel.module.set_forward_args(*self._arguments(channel.name, channel.module, of_channels))

    def _arguments(self, path: str, norm: DMCPBatchNorm2d, of_channels: Mapping[int, MutableChannelUnit]) -> Any:
        """Parameters and groups of every unit whose channels a norm has, in their order."""
        container = norm.get_mutable_attr("num_features")
        parts: list[tuple[Any, Any]] = []
        covered = 0
        members = container.registered.items() if isinstance(container, MutableChannelContainer) else ()
        for (start, end), member in members:
            if start > covered:
                parts.append((None, (0, 0, start - covered)))
            unit = of_channels.get(id(member))
            if unit is None:
                parts.append((None, (0, 0, end - start)))
            elif unit.num_channels != end - start:
                raise StateError(
                    f"norm {path!r} repeats the {unit.num_channels} channels of unit {unit.name!r}; scale what reads them "
                    "instead: mutorch.training.markov_arch_step does"
                )
            else:
                learned = unit.name in self.markov.names
                groups = cast("DMCPChannelUnit", unit).groups
                parts.append((self.markov[unit.name] if learned else None, groups if learned else (0, 0, end - start)))
            covered = end
        rest = DynamicOp.whole_size(norm, "num_features") - covered
        if rest:
            parts.append((None, (0, 0, rest)))
        if len(parts) == 1:
            return parts[0]
        return [parameter for parameter, _ in parts], [groups for _, groups in parts]
