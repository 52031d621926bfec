"""The multiply-adds of fused kernels that torch's counter leaves out: attention and recurrent layers on the CPU.

Each has the count of the matrix products that it stands for, so a model costs the same on every device. They only read
shapes, whose sizes may be `Amount`s.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_flop_count


def formula_of(packet: Any) -> Callable[..., int] | None:
    """What counts the operations of a kernel: two per multiply-add; `None` where nothing does."""
    found: Callable[..., int] | None = flop_registry.get(packet)
    return found or _FUSED.get(str(packet))


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)  # type: ignore[no-untyped-call, no-any-return]


def _mkldnn_rnn(x: Tensor, input_weight: Tensor, hidden_weight: Tensor, *_: Any, **__: Any) -> int:
    return _products(x, [input_weight, hidden_weight])


def _cudnn_rnn(x: Tensor, weights: list[Tensor], *_: Any, **__: Any) -> int:
    return _products(x, [weight for weight in weights if len(weight.shape) > 1])


def _products(x: Tensor, weights: list[Tensor]) -> int:
    """Every element of every matrix meets every position of the sequence once."""
    return 2 * math.prod(x.shape[:-1]) * sum(math.prod(weight.shape) for weight in weights)


_FUSED: dict[str, Callable[..., int]] = {
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten.mkldnn_rnn_layer": _mkldnn_rnn,
    "aten._cudnn_rnn": _cudnn_rnn,
}
