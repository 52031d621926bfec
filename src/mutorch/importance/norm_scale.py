"""Channels by the scale that their norm layers give them."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .magnitude import L2
from .places import Place, unit_places


class BatchNormScale:
    """The mean absolute scale that BatchNorm layers give each channel (Liu et al., arXiv 1708.06519).

    Meant for models that were trained with a penalty on these scales. A unit without BatchNorm is scored by `L2`.

    Example:
        >>> from mutorch.channels import searchable
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
        >>> with torch.no_grad():
        ...     _ = model[1].weight.copy_(torch.tensor([-3.0, 1.0]))
        >>> BatchNormScale()(searchable(model, torch.zeros(1, 1, 2, 2)))["0"].tolist()
        [3.0, 1.0]
    """

    def __call__(self, net: nn.Module) -> dict[str, Tensor]:
        """Unit name to one score a channel."""
        modules = dict(net.named_modules())
        found: dict[str, Tensor] = {}
        without: list[str] = []
        for name, places in unit_places(net).items():
            scales = [place for place in places if _is_scale(modules[place.where.module], place)]
            if scales:
                each = [place.per_channel(place.parameter.detach().abs().double()).cpu() for place in scales]
                found[name] = torch.stack(each).mean(dim=0)
            else:
                without.append(name)
        if without:
            norms = L2()(net)
            found |= {name: norms[name] for name in without}
        return found


def _is_scale(module: nn.Module, place: Place) -> bool:
    return isinstance(module, _BatchNorm) and place.where.name == "weight"
