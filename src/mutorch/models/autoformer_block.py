"""An encoder block of a vision transformer whose width, heads and inner width are decided by mutables."""

from torch import Tensor, nn

from mutorch.mutables import BaseMutableChannel, SimpleMutableChannel
from mutorch.ops import DynamicLayerNorm, DynamicLinear, DynamicMultiheadAttention
from mutorch.ops.attention import HEAD_DIMS

from .conv_norm_act import Config, build_activation
from .drop_path import DropPath
from .elastic_mb_block import Number, largest


class AutoformerBlock(nn.Module):
    """Attention, then two linear layers, each behind a norm and added to its input (arXiv 2010.11929, 2107.00651).

    It is as large as any choice needs it, and computes with the first features and heads, as many as are chosen.

    Args:
        embed_dims: the mutable of the features; `SimpleMutableChannel(n)` for n that stay.
        num_heads, mlp_ratio: a number, or a mutable. A head has 64 features; the inner width is `embed_dims * mlp_ratio`.
        qkv_bias, relative_position: see `MultiheadAttention`.
        drop_rate, drop_path_rate: dropout of outputs, and how often a branch is left out in training.

    Example:
        >>> import torch
        >>> from mutorch.mutables import OneShotMutableChannel, OneShotMutableValue
        >>> width, heads = OneShotMutableChannel(32, [16, 32]), OneShotMutableValue([1, 2])
        >>> block = AutoformerBlock(width, heads, mlp_ratio=4)
        >>> width.current_choice, heads.current_choice = 16, 1
        >>> block(torch.ones(2, 5, 16)).shape, block.fc1.weight.shape, block.attn.w_qs.weight.shape
        (torch.Size([2, 5, 16]), torch.Size([64, 16]), torch.Size([64, 16]))
    """

    def __init__(
        self,
        embed_dims: BaseMutableChannel,
        num_heads: Number,
        mlp_ratio: Number,
        *,
        qkv_bias: bool = True,
        relative_position: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        act_cfg: Config | None = None,
    ) -> None:
        super().__init__()
        width, inner = embed_dims.num_channels, embed_dims * mlp_ratio
        self.ln1 = DynamicLayerNorm(width)
        self.attn = DynamicMultiheadAttention(
            width,
            largest(num_heads),
            proj_drop_rate=drop_rate,
            qkv_bias=qkv_bias,
            relative_position=relative_position,
        )
        self.ln2 = DynamicLayerNorm(width)
        self.fc1 = DynamicLinear(width, inner.num_channels)
        self.activate = build_activation(act_cfg or {"type": "GELU"})
        self.fc2 = DynamicLinear(inner.num_channels, width)
        self.drop = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path_rate)

        for norm in (self.ln1, self.ln2):
            norm.register_mutable_attr("num_features", embed_dims)
        self.attn.register_mutable_attr("embed_dims", embed_dims)
        if not isinstance(num_heads, int):
            self.attn.register_mutable_attr("num_heads", num_heads)
            self.attn.register_mutable_attr("q_embed_dims", SimpleMutableChannel(HEAD_DIMS) * num_heads)
        self.fc1.register_mutable_attr("in_features", embed_dims)
        self.fc1.register_mutable_attr("out_features", inner)
        self.fc2.register_mutable_attr("in_features", inner)
        self.fc2.register_mutable_attr("out_features", embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.ln1(x)))
        inner = self.drop(self.activate(self.fc1(self.ln2(x))))
        out: Tensor = x + self.drop_path(self.drop(self.fc2(inner)))
        return out
