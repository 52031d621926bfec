"""The model that a config describes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mutorch.registry import MODELS


def build_model(config: Mapping[str, Any], seed: int) -> nn.Module:
    """A new model, with the same weights each time; torch's global generator is as before.

    Example:
        >>> one, two = (build_model({"type": "Linear", "in_features": 2, "out_features": 2}, seed=0) for _ in range(2))
        >>> bool((one.weight == two.weight).all())
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = MODELS.build(dict(config))
    return model
