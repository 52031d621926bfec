"""ShuffleNetV2 with blocks to choose."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .backbone import (
    build_stage,
    checked_rows,
    checked_stages,
    convs_and_norms,
    features_of,
    freeze_,
    is_pretrained,
    norms_eval_,
    with_checkpoints_,
)
from .conv_norm_act import BATCH_NORM, RELU, Config, conv_norm_act


class SearchableShuffleNetV2(nn.Module):
    """The ShuffleNetV2 backbone of Single Path One-Shot (arXiv 1904.00420; seed 000), at 1/32 of the image's size.

    `conv1`, then `layers`: one stage for each row of `arch_setting`, its first block with stride 2, and a 1x1
    convolution at the end. The mutable of a block stands at `layers.<stage>.<block>`.

    Args:
        arch_setting: rows `[channel, num_blocks, mutable_cfg]`; the config of a plain block works too. Every block is
            built from a copy, with `in_channels`, `out_channels` and `stride` added. Norm and activation of the blocks
            are said in their own configs.
        stem_multiplier: the stem has 16 times as many channels.
        widen_factor: multiplies every row's channels.
        out_indices: the stages whose outputs `forward` returns; the last layer counts as one.
        frozen_stages: keep the stem and so many stages in eval mode and without gradients; -1 for none.
        with_last_layer: end with the 1x1 convolution.
        conv_cfg, norm_cfg, act_cfg: of the stem and the last layer; see `conv_norm_act`.
        norm_eval: keep every batch norm in eval mode.
        with_cp: blocks compute their inside again during backward instead of keeping it.
        init_cfg: kept; `dict(type='Pretrained', ...)` makes `init_weights` leave all as it is.
        last_channels: of the last layer.
        in_channels: of the images.
        stem_max_pool: max-pool after the stem, as the published ShuffleNetV2 does; the output is then 1/32 of the size
            with three stages.

    Errors:
        ConfigError: a row of another form, or out_indices or frozen_stages that are no stages.

    Example:
        >>> from mutorch.mutators import Mutator
        >>> block = dict(
        ...     type="OneShotMutableOP",
        ...     candidates=dict(k3=dict(type="ShuffleBlock", kernel_size=3), xception=dict(type="ShuffleXception")),
        ... )
        >>> backbone = SearchableShuffleNetV2([[16, 1, block], [32, 2, block]], out_indices=(0, 2))
        >>> Mutator(backbone).space.names
        ('layers.0.0', 'layers.1.0', 'layers.1.1')
        >>> [tuple(feature.shape) for feature in backbone(torch.ones(1, 3, 32, 32))]
        [(1, 16, 8, 8), (1, 1024, 4, 4)]
    """

    def __init__(
        self,
        arch_setting: Sequence[Sequence[Any]],
        stem_multiplier: float = 1,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (4,),
        frozen_stages: int = -1,
        with_last_layer: bool = True,
        conv_cfg: Config | None = None,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config | None = RELU,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        *,
        last_channels: int = 1024,
        in_channels: int = 3,
        stem_max_pool: bool = False,
    ) -> None:
        super().__init__()
        rows = checked_rows(arch_setting, ("channel", "num_blocks", "mutable_cfg"))
        self.out_indices = checked_stages(out_indices, frozen_stages, len(rows) + with_last_layer)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.init_cfg = init_cfg

        channels = round(16 * stem_multiplier)
        self.conv1 = conv_norm_act(in_channels, channels, 3, 2, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem_max_pool else None
        self.layers = nn.ModuleList()
        for channel, num_blocks, block_cfg in rows:
            out_channels = round(channel * widen_factor)
            self.layers.append(
                build_stage(block_cfg, in_channels=channels, out_channels=out_channels, num_blocks=num_blocks, stride=2)
            )
            channels = out_channels
        if with_last_layer:
            self.layers.append(
                conv_norm_act(channels, last_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
            )
        if with_cp:
            with_checkpoints_(self)
        self.train()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The features of `out_indices`, from images (N, in_channels, H, W)."""
        x = self.conv1(x)
        if self.maxpool is not None:
            x = self.maxpool(x)
        return features_of(x, self.layers, self.out_indices)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for what is frozen and, with `norm_eval`, batch norms."""
        super().train(mode)
        if self.frozen_stages >= 0:
            freeze_([self.conv1, *self.layers[: self.frozen_stages]])
        if mode and self.norm_eval:
            norms_eval_(self)
        return self

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """New weights, as ShuffleNetV2 starts: normal with deviation 0.01 in the stem, 1 / fan of a group elsewhere.

        Norms start at scale 1, shift 1e-4 and mean 0. Nothing happens where `init_cfg` says 'Pretrained'.

        Args:
            generator: what the weights are drawn from; torch's global one unless given.
        """
        if is_pretrained(self.init_cfg):
            return
        for name, module in convs_and_norms(self):
            if isinstance(module, nn.Conv2d):
                deviation = 0.01 if "conv1" in name else 1 / module.weight.shape[1]
                nn.init.normal_(module.weight, 0, deviation, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                continue
            if module.weight is not None:
                nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.constant_(module.bias, 1e-4)
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                nn.init.zeros_(module.running_mean)
