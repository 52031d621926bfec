"""Linear layers, embeddings and learned activations whose features are decided by mutables."""

from __future__ import annotations

from torch import nn

from .op import Attr, DynamicOp


class DynamicLinear(DynamicOp, nn.Linear):
    """An `nn.Linear` whose `in_features` and `out_features` can be decided.

    Example:
        >>> from mutorch.mutables import SequentialMutableChannel
        >>> linear, width = DynamicLinear(8, 4), SequentialMutableChannel(8)
        >>> linear.register_mutable_attr("in_channels", width)  # another name of in_features
        >>> width.current_choice = 5
        >>> linear.weight.shape, linear.in_features
        (torch.Size([4, 5]), 5)
    """

    static_class = nn.Linear
    attrs = {
        "in_features": Attr((("weight", 1),), "in_features"),
        "out_features": Attr((("weight", 0), ("bias", 0)), "out_features"),
    }
    aliases = {"in_channels": "in_features", "out_channels": "out_features"}


class DynamicEmbedding(DynamicOp, nn.Embedding):
    """An `nn.Embedding` whose `embedding_dim` can be decided; `out_channels` is another name of it."""

    static_class = nn.Embedding
    attrs = {"embedding_dim": Attr((("weight", 1),), "embedding_dim")}
    aliases = {"out_channels": "embedding_dim"}


class DynamicPReLU(DynamicOp, nn.PReLU):
    """An `nn.PReLU` whose `num_parameters` can be decided."""

    static_class = nn.PReLU
    attrs = {"num_parameters": Attr((("weight", 0),), "num_parameters")}
    aliases = {"in_channels": "num_parameters", "out_channels": "num_parameters"}
