"""A vision transformer whose depth, width, heads and inner widths are searched for."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.ops import DynamicLayerNorm, DynamicPatchEmbed, RelativePosition2D, Repeat
from mutorch.ops.dynamic import whole_tensor

from .autoformer_block import AutoformerBlock
from .backbone import is_pretrained
from .conv_norm_act import Config
from .elastic_mb_block import largest
from .elastic_ranges import Range, checked_ranges, value_of, values_of, width_of
from .position_tokens import DynamicPositionTokens, PositionTokens

KEYS = ("mlp_ratios", "num_heads", "depth", "embed_dims")


class AutoformerBackbone(nn.Module):
    """The search space of AutoFormer (arXiv 2107.00651): one set of weights, of which a subnet has the first features.

    `patch_embed`, a class token and positions (`tokens`), `blocks`, `final_norm`; the output is a tuple of one feature
    (N, embed_dims), the mean over the patches.

    Decisions are `backbone.embed_dims`, `backbone.depth` and, of block i from 0, `backbone.blocks.<i>.num_heads` and
    `backbone.blocks.<i>.mlp_ratio`; what has one choice is no decision.

    Args:
        arch_setting: ranges `[min, max, step]`, or `{"choices": [...]}`: `mlp_ratios`, `num_heads`, `depth` and
            `embed_dims`.
        img_size, patch_size, in_channels: height and width of images and patches, and the channels of images.
        drop_rate, drop_path_rate: dropout of outputs; how often a branch of the last block is left out in training, less often of
            earlier ones.
        qkv_bias, relative_position: see `MultiheadAttention`.
        use_final_norm: whether a norm follows the blocks.

    Errors:
        ConfigError: ranges that are none, or an image that patches do not fill.

    Example:
        >>> from mutorch.mutators import Mutator
        >>> ranges = dict(mlp_ratios=[3, 4, 0.5], num_heads=[1, 2, 1], depth=[1, 2, 1], embed_dims=[16, 32, 8])
        >>> print(Mutator(AutoformerBackbone(ranges, img_size=32)).space.report())
        backbone.embed_dims          3  16, 24, 32
        backbone.depth               2  1, 2
        backbone.blocks.0.num_heads  2  1, 2
        backbone.blocks.0.mlp_ratio  3  3.0, 3.5, 4.0
        backbone.blocks.1.num_heads  2  1, 2  (when backbone.depth = 2)
        backbone.blocks.1.mlp_ratio  3  3.0, 3.5, 4.0  (when backbone.depth = 2)
        6 decisions, 126 architectures
    """

    def __init__(
        self,
        arch_setting: Mapping[str, Range],
        img_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        act_cfg: Config | None = None,
        use_final_norm: bool = True,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        *,
        relative_position: bool = True,
    ) -> None:
        super().__init__()
        if img_size % patch_size:
            raise ConfigError(f"img_size {img_size} is no multiple of patch_size {patch_size}")
        ranges = {name: values_of(name, given) for name, given in checked_ranges(arch_setting, KEYS).items()}
        self.init_cfg = init_cfg
        width = width_of([int(value) for value in ranges["embed_dims"]], "backbone.embed_dims")
        depth = value_of(ranges["depth"], "backbone.depth")
        deepest = largest(depth)

        self.patch_embed = DynamicPatchEmbed(img_size, in_channels, width.num_channels, patch_size)
        self.tokens = DynamicPositionTokens(self.patch_embed.num_patches, width.num_channels)
        for module in (self.patch_embed, self.tokens):
            module.register_mutable_attr("embed_dims", width)
        self.drop = nn.Dropout(drop_rate)
        blocks = [
            AutoformerBlock(
                width,
                value_of(ranges["num_heads"], f"backbone.blocks.{number}.num_heads"),
                value_of(ranges["mlp_ratios"], f"backbone.blocks.{number}.mlp_ratio"),
                qkv_bias=qkv_bias,
                relative_position=relative_position,
                drop_rate=drop_rate,
                drop_path_rate=drop_path_rate * number / max(1, deepest - 1),
                act_cfg=act_cfg,
            )
            for number in range(deepest)
        ]
        self.blocks = Repeat(blocks, depth)
        self.final_norm: nn.Module = nn.Identity()
        if use_final_norm:
            self.final_norm = norm = DynamicLayerNorm(width.num_channels)
            norm.register_mutable_attr("num_features", width)

    @property
    def last_mutable(self) -> Any:
        """The mutable of the features, for a head to follow."""
        return self.tokens.get_mutable_attr("embed_dims")

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """The mean over the patches of an image (N, in_channels, img_size, img_size), in a tuple."""
        x = self.drop(self.tokens(self.patch_embed(x)))
        x = self.final_norm(self.blocks(x))
        return (x[:, 1:].mean(dim=1),)

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """New weights of the largest network: normal with deviation 0.02, cut at 2; norms start at scale 1, shifts at 0.

        Nothing happens where `init_cfg` says 'Pretrained'.

        Args:
            generator: what the weights are drawn from; torch's global one unless given.
        """
        if is_pretrained(self.init_cfg):
            return
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(whole_tensor(module, "weight"))
                nn.init.zeros_(whole_tensor(module, "bias"))
            elif isinstance(module, nn.Linear | nn.Conv2d | PositionTokens | RelativePosition2D):
                for name, parameter in module.named_parameters(recurse=False):
                    if name == "bias":
                        nn.init.zeros_(parameter)
                    else:
                        nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
