"""Units that keep the channels with the largest weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mutorch.errors import StateError

from .sequential_unit import SequentialMutableChannelUnit


class L1MutableChannelUnit(SequentialMutableChannelUnit):
    """Channels of which those with the largest weights are kept (Li et al. 2017; seed 001).

    A channel is worth the mean size of the weights that make it, averaged over the modules that make it. The order is that
    of the weights at the moment when a choice is made. A config holds it, so that the channels that come back are those
    that were kept, whatever became of the weights.

    Args:
        num_channels, choice_mode, divisor, min_value, min_ratio, kwargs: see `SequentialMutableChannelUnit`.

    Example:
        >>> from mutorch.channels import Channel
        >>> linear = nn.Linear(1, 3)
        >>> linear.weight.data = torch.tensor([[1.0], [3.0], [-2.0]])
        >>> unit = L1MutableChannelUnit(3)
        >>> unit.add_output_related(Channel("linear", linear, (0, 3)))
        >>> unit.current_choice = 2
        >>> unit.mutable_channel.active_index()
        tensor([1, 2])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ranked: Any = None
        self._given = False

    @classmethod
    def init_from_cfg(cls, model: nn.Module | None, config: Mapping[str, Any]) -> Self:
        unit = super().init_from_cfg(model, {name: value for name, value in config.items() if name != "choice"})
        if "order" in config:
            unit.mutable_channel.set_order(config["order"])
            unit._given = True
        if "choice" in config:
            unit.current_choice = config["choice"]
        return unit

    def assign(self, choice: Any) -> None:
        if not self._given and not self._is_fixed:
            self._rank()
        super().assign(choice)

    def rank(self) -> Tensor:
        """What each channel is worth now; the order follows it from now on."""
        self._given = False
        norm = self._importance()
        if norm is None:
            raise StateError(f"unit {self.name!r} has no convolution or linear layer that makes its channels")
        self._rank()
        return norm

    def _rank(self) -> None:
        weights = [module._parameters["weight"] for module, _, _ in self._makers()]
        now = [(id(weight), None if weight is None else weight._version) for weight in weights]
        if now == self._ranked:
            return
        self._ranked = now
        norm = self._importance()
        if norm is not None:
            self.mutable_channel.set_order(torch.argsort(norm, descending=True, stable=True))

    def _makers(self) -> list[tuple[nn.Module, int, int]]:
        return [
            (channel.module, channel.start, channel.end)
            for channel in self.output_related
            if isinstance(channel.module, nn.Linear | _ConvNd)
        ]

    def _importance(self) -> Tensor | None:
        norms = [self._get_l1_norm(*maker).reshape(self.num_channels, -1).mean(1) for maker in self._makers()]
        return torch.stack([norm.cpu() for norm in norms]).mean(0) if norms else None

    def _get_l1_norm(self, module: nn.Module, start: int, end: int) -> Tensor:
        """The mean size of the weights of each of the output channels from `start` to before `end`."""
        weight: Tensor = module.state_dict()["weight"]
        if isinstance(module, _ConvNd) and module.transposed:
            groups = vars(module)["groups"]
            weight = weight.view(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
        return weight.flatten(1).abs().mean(1)[start:end]

    def config_template(self, with_init_args: bool = False, with_channels: bool = False) -> dict[str, Any]:
        config = super().config_template(with_init_args, with_channels)
        order = self.mutable_channel.order
        return config if order == sorted(order) else {**config, "order": order}
