"""Images as sequences of patches."""

from __future__ import annotations

from torch import Tensor, nn

from .conv import DynamicConv2d
from .op import Attr, DynamicOp


class PatchEmbed(nn.Module):
    """Images (batch, channels, height, width) as patches (batch, patches, `embed_dims`), by one convolution.

    Args:
        img_size: height and width of the images.
        in_channels: their channels.
        embed_dims: the features of a patch.
        patch_size: height and width of a patch.
        bias: whether the convolution has one.
    """

    def __init__(
        self, img_size: int = 224, in_channels: int = 3, embed_dims: int = 768, patch_size: int = 16, bias: bool = True
    ) -> None:
        super().__init__()
        self.img_size = img_size
        self.embed_dims = embed_dims
        self.patch_size = patch_size
        self.num_patches = (img_size // patch_size) ** 2
        self.projection = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.projection(x)
        return out.flatten(2).transpose(1, 2)


class DynamicPatchEmbed(DynamicOp, PatchEmbed):
    """A `PatchEmbed` whose `embed_dims` can be decided."""

    static_class = PatchEmbed
    attrs = {"embed_dims": Attr((), "embed_dims", parts=(("projection", "out_channels"),))}
    aliases = {"in_channels": "embed_dims", "out_channels": "embed_dims"}

    def _begin(self) -> None:
        super()._begin()
        self.projection = DynamicConv2d.convert_from(self.projection)
