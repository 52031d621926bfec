"""A class token before the patches of an image, and where each of them lies, as learned vectors."""

import torch
from torch import Tensor, nn

from mutorch.ops import Attr, DynamicOp


class PositionTokens(nn.Module):
    """Sequences (batch, patches, `embed_dims`) with a class token before them, and a vector for each position added.

    Args:
        num_patches: how many patches an image has.
        embed_dims: the features of a patch.

    Example:
        >>> PositionTokens(num_patches=4, embed_dims=8)(torch.ones(2, 4, 8)).shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, num_patches: int, embed_dims: int) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.pos_embed = nn.Parameter(torch.empty(1, num_patches + 1, embed_dims))
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        token = self.cls_token.expand(x.shape[0], -1, -1)
        return torch.cat((token, x), dim=1) + self.pos_embed


class DynamicPositionTokens(DynamicOp, PositionTokens):
    """`PositionTokens` whose `embed_dims` can be decided."""

    static_class = PositionTokens
    attrs = {"embed_dims": Attr((("cls_token", 2), ("pos_embed", 2)), "embed_dims")}
    aliases = {"in_channels": "embed_dims", "out_channels": "embed_dims"}
