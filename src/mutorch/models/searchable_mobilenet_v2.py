"""MobileNetV2 with blocks to choose."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from mutorch.utils import make_divisible

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
from .conv_norm_act import BATCH_NORM, RELU6, Config, conv_norm_act


class SearchableMobileNetV2(nn.Module):
    """A MobileNetV2 backbone (arXiv 1801.04381) whose blocks can be mutables, as in ProxylessNAS (arXiv 1812.00332).

    `conv1`, then `layer1`, `layer2`, ... one for each row of `arch_setting`, then `conv2`. The mutable of a block stands
    at `layer<stage>.<block>`.

    Args:
        arch_setting: rows `[channel, num_blocks, stride, mutable_cfg]`, otherwise as in `SearchableShuffleNetV2`.
        first_channels: of the stem.
        last_channels: of `conv2`; multiplied by `widen_factor` where that is above 1.
        widen_factor: multiplies the other widths, which are made divisible by 8.
        out_indices: the stages whose outputs `forward` returns; `conv2` counts as one.
        frozen_stages: keep the stem and `layer1` to `layer<frozen_stages>` in eval mode and without gradients; -1 for
            none.
        conv_cfg, norm_cfg, act_cfg: of `conv1` and `conv2`; see `conv_norm_act`.
        norm_eval, with_cp, init_cfg: as in `SearchableShuffleNetV2`.

    Errors:
        ConfigError: a row of another form, or out_indices or frozen_stages that are no stages.

    Example:
        >>> block = dict(type="MBBlock", kernel_size=3, expand_ratio=6)
        >>> backbone = SearchableMobileNetV2([[16, 1, 1, block], [24, 2, 2, block]], out_indices=(1, 2))
        >>> [tuple(feature.shape) for feature in backbone(torch.ones(1, 3, 32, 32))]
        [(1, 24, 8, 8), (1, 1280, 8, 8)]
    """

    def __init__(
        self,
        arch_setting: Sequence[Sequence[Any]],
        first_channels: int = 32,
        last_channels: int = 1280,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (7,),
        frozen_stages: int = -1,
        conv_cfg: Config | None = None,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config | None = RELU6,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        rows = checked_rows(arch_setting, ("channel", "num_blocks", "stride", "mutable_cfg"))
        self.out_indices = checked_stages(out_indices, frozen_stages, len(rows) + 1)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.init_cfg = init_cfg
        self.out_channel = round(last_channels * widen_factor) if widen_factor > 1 else last_channels

        channels = make_divisible(first_channels * widen_factor, 8)
        self.conv1 = conv_norm_act(3, channels, 3, 2, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.layers: list[str] = []
        for number, (channel, num_blocks, stride, block_cfg) in enumerate(rows, 1):
            out_channels = make_divisible(channel * widen_factor, 8)
            stage = build_stage(
                block_cfg, in_channels=channels, out_channels=out_channels, num_blocks=num_blocks, stride=stride
            )
            self.add_module(f"layer{number}", stage)
            self.layers.append(f"layer{number}")
            channels = out_channels
        self.conv2 = conv_norm_act(channels, self.out_channel, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.layers.append("conv2")
        if with_cp:
            with_checkpoints_(self)
        self.train()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The features of `out_indices`, from an image (N, 3, H, W)."""
        x = self.conv1(x)
        return features_of(x, (getattr(self, name) for name in self.layers), self.out_indices)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for what is frozen and, with `norm_eval`, batch norms."""
        super().train(mode)
        if self.frozen_stages >= 0:
            freeze_([self.conv1, *(getattr(self, name) for name in self.layers[: self.frozen_stages])])
        if mode and self.norm_eval:
            norms_eval_(self)
        return self

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """New weights: Kaiming normal over the fan out (arXiv 1502.01852); norms start at scale 1 and shift 0.

        Nothing happens where `init_cfg` says 'Pretrained'.

        Args:
            generator: what the weights are drawn from; torch's global one unless given.
        """
        if is_pretrained(self.init_cfg):
            return
        for _, module in convs_and_norms(self):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
            elif module.weight is not None:
                nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
