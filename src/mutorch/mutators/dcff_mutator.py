"""A mutator whose removed filters are fused into those that stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from mutorch.channels import DCFFChannelUnit, MutableChannelUnit
from mutorch.errors import ConfigError
from mutorch.ops import FuseConv2d

from .channel_mutator import ChannelMutator


class DCFFChannelMutator(ChannelMutator):
    """A `ChannelMutator` of `DCFFChannelUnit`s (dynamic-coded filter fusion, Lin et al. 2021, arXiv 2107.06916).

    Every filter that stays is a mixture of all filters of its convolution, weighted by how alike they are; all of them are
    trained. `calc_information` computes the weights anew, for the widths and filters of this moment; call it while training,
    with a temperature that falls (`mutorch.training.FusionTemperature`), and once at the end. `export` gives the fused
    filters as plain ones.

    Args:
        channel_unit_cfg: as for `ChannelMutator`, of `DCFFChannelUnit`s.
        parse_cfg, init_cfg: see `ChannelMutator`.

    Errors:
        ConfigError: units of another class.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)).eval()
        >>> mutator = DCFFChannelMutator(parse_cfg={"type": "ChannelAnalyzer", "demo_input": (1, 3, 4, 4)})
        >>> mutator.prepare_from_supernet(model)
        >>> mutator.set_choices({"0_(0, 8)_8": 0.5})
        >>> mutator.calc_information(tau=0.5)
        >>> model[0].weight.shape, model[0].state_dict()["weight"].shape
        (torch.Size([4, 3, 1, 1]), torch.Size([8, 3, 1, 1]))
    """

    def __init__(
        self,
        channel_unit_cfg: type[MutableChannelUnit] | str | Mapping[str, Any] = DCFFChannelUnit,
        parse_cfg: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(channel_unit_cfg, parse_cfg, init_cfg)
        if not issubclass(self.unit_class, DCFFChannelUnit):
            raise ConfigError(f"a DCFFChannelMutator has DCFFChannelUnits, got {self.unit_class.__name__}")

    def calc_information(self, tau: float) -> None:
        """Choose the filters that stay in every unit, and let them be mixtures of all.

        The channels of a unit that are kept are those whose filters are least like the others, of all its convolutions
        together: fused filters stay at the places that they had, so that norms and the layers that read them fit, whichever
        filters stay next time. What is at full width, or made by a linear layer, is not fused.

        Args:
            tau: the temperature; near 0 each filter is itself.

        Errors:
            ConfigError: a temperature that is not positive.
        """
        convs = {id(conv): conv for unit in self.mutable_units for conv, _ in _fused_convs(unit)}
        found = {number: conv.likenesses(tau) for number, conv in convs.items()}
        for unit in self.mutable_units:
            starts = [(found[id(conv)][1], start) for conv, start in _fused_convs(unit)]
            is_cut = unit.mutable_channel.activated_channels < unit.num_channels
            if starts and is_cut and not unit.is_fixed:
                scores = [_ranks(score[start : start + unit.num_channels]) for score, start in starts]
                order = torch.argsort(torch.stack(scores).mean(0), descending=True, stable=True)
                cast("DCFFChannelUnit", unit).mutable_channel.set_order(order)
                unit.refresh()
        for number, conv in convs.items():
            rows = conv.extent("out_channels")
            conv.set_forward_args(None if rows is None else rows.take(found[number][0], 0))

    def forget_information(self) -> None:
        """Undo `calc_information`: filters are themselves, and the first ones stay."""
        for unit in self.mutable_units:
            if not unit.is_fixed:
                cast("DCFFChannelUnit", unit).mutable_channel.set_order(None)
                unit.refresh()
            for conv, _ in _fused_convs(unit):
                conv.set_forward_args(None)


def _fused_convs(unit: MutableChannelUnit) -> list[tuple[FuseConv2d, int]]:
    """The convolutions that make the channels of a unit, and where its channels begin."""
    found = [(channel.module, channel.start) for channel in unit.output_related]
    return [(module, start) for module, start in found if isinstance(module, FuseConv2d)]


def _ranks(score: Tensor) -> Tensor:
    """The places of scores in their order: those of two convolutions are not of one size."""
    return score.cpu().argsort(stable=True).argsort().double()
