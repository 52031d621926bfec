"""Self-attention with a searchable number of heads (AutoFormer, Chen et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .linear import DynamicLinear
from .op import Attr, DynamicOp
from .relative_position import RelativePosition2D

HEAD_DIMS = 64


class MultiheadAttention(nn.Module):
    """Self-attention over a sequence (batch, length, `embed_dims`), with 64 features a head.

    Args:
        embed_dims: the features of input and output.
        num_heads: how many heads there are.
        attn_drop_rate, proj_drop_rate: dropout of attention weights and of the output.
        qkv_bias, proj_bias: whether the linear layers have a bias.
        qk_scale: what products of queries and keys are multiplied with; `64 ** -0.5` unless given.
        relative_position: whether keys and values know where they lie as seen from the query; see `RelativePosition2D`.
        max_relative_position: the largest distance that is told apart.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        qkv_bias: bool = True,
        proj_bias: bool = True,
        qk_scale: float | None = None,
        relative_position: bool = True,
        max_relative_position: int = 14,
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.head_dims = HEAD_DIMS
        self.q_embed_dims = num_heads * HEAD_DIMS
        self.scale = HEAD_DIMS**-0.5 if qk_scale is None else qk_scale
        self.w_qs = nn.Linear(embed_dims, self.q_embed_dims, bias=qkv_bias)
        self.w_ks = nn.Linear(embed_dims, self.q_embed_dims, bias=qkv_bias)
        self.w_vs = nn.Linear(embed_dims, self.q_embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(self.q_embed_dims, embed_dims, bias=proj_bias)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.out_drop = nn.Dropout(proj_drop_rate)
        self.relative_position = relative_position
        if relative_position:
            self.rel_pos_embed_k = RelativePosition2D(HEAD_DIMS, max_relative_position)
            self.rel_pos_embed_v = RelativePosition2D(HEAD_DIMS, max_relative_position)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            layer(x).view(batch, length, self.num_heads, -1).transpose(1, 2)
            for layer in (self.w_qs, self.w_ks, self.w_vs)
        )
        attention = query @ key.transpose(-2, -1)
        if self.relative_position:
            places = self.rel_pos_embed_k(length, length)[..., : query.shape[-1]]
            attention = attention + torch.einsum("bhqd,qkd->bhqk", query, places)
        attention = self.attn_drop((attention * self.scale).softmax(-1))
        out = attention @ value
        if self.relative_position:
            places = self.rel_pos_embed_v(length, length)[..., : query.shape[-1]]
            out = out + torch.einsum("bhqk,qkd->bhqd", attention, places)
        out = self.proj(out.transpose(1, 2).reshape(batch, length, -1))
        dropped: Tensor = self.out_drop(out)
        return dropped


class DynamicMultiheadAttention(DynamicOp, MultiheadAttention):
    """A `MultiheadAttention` whose `num_heads`, `embed_dims` and `q_embed_dims` can be decided.

    A head has 64 features: let `q_embed_dims` be derived from the heads, as below.

    Example:
        >>> import torch
        >>> from mutorch.mutables import OneShotMutableValue, SequentialMutableChannel
        >>> attention = DynamicMultiheadAttention(32, num_heads=4)
        >>> heads, width = OneShotMutableValue([2, 4]), SequentialMutableChannel(32)
        >>> head = SequentialMutableChannel(64)
        >>> attention.register_mutable_attr("num_heads", heads)
        >>> attention.register_mutable_attr("embed_dims", width)
        >>> attention.register_mutable_attr("q_embed_dims", head * heads)
        >>> heads.current_choice, width.current_choice = 2, 24
        >>> attention(torch.zeros(1, 5, 24)).shape, attention.w_qs.weight.shape
        (torch.Size([1, 5, 24]), torch.Size([128, 24]))
    """

    static_class = MultiheadAttention
    attrs = {
        "num_heads": Attr((), "num_heads", channels=False, in_mask_mode=False),
        "embed_dims": Attr(
            (),
            "embed_dims",
            parts=(
                ("w_qs", "in_features"),
                ("w_ks", "in_features"),
                ("w_vs", "in_features"),
                ("proj", "out_features"),
            ),
        ),
        "q_embed_dims": Attr(
            (),
            "q_embed_dims",
            parts=(
                ("w_qs", "out_features"),
                ("w_ks", "out_features"),
                ("w_vs", "out_features"),
                ("proj", "in_features"),
            ),
        ),
    }
    aliases = {"in_channels": "embed_dims", "out_channels": "q_embed_dims"}

    def _begin(self) -> None:
        super()._begin()
        for name in ("w_qs", "w_ks", "w_vs", "proj"):
            setattr(self, name, DynamicLinear.convert_from(getattr(self, name)))
