"""A MobileNetV3 whose widths, depths, kernels and expansions are searched for."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from mutorch.mutables import BaseMutableChannel, DerivedMutable
from mutorch.ops import Repeat
from mutorch.ops.dynamic import whole_tensor
from mutorch.utils import make_divisible

from .backbone import checked_stages, convs_and_norms, features_of, freeze_, is_pretrained, norms_eval_
from .conv_norm_act import Config, conv_norm_act
from .elastic_mb_block import Width, elastic_mb_block, follow_, largest
from .elastic_ranges import Range, checked_length, checked_ranges, value_of, values_of, width_of
from .mb_block import MBBlock

KEYS = ("kernel_size", "num_blocks", "expand_ratio", "num_out_channels")
BIG_NAS_CONV: Config = MappingProxyType({"type": "BigNasConv2d"})
DYNAMIC_NORM: Config = MappingProxyType({"type": "DynamicBatchNorm2d"})
STRIDES = (1, 2, 2, 2, 1, 2, 1)
WITH_SE = (False, False, True, False, True, True, True)


class AttentiveMobileNetV3(nn.Module):
    """The backbone of BigNAS (arXiv 2003.11142), AttentiveNAS (2011.09011) and Once-for-All (1908.09791).

    `first_conv`, then `layer1`, `layer2`, ... one for each stage, then `last_conv`: a 1x1 convolution, global average
    pooling and `feature_mix_layer`. One set of weights serves all architectures: a narrower layer has the first channels, a
    smaller kernel the middle of the largest (`BigNasConv2d`) or what learned matrices make of it (`OFAConv2d`), a
    shallower stage the first blocks.

    Decisions are `backbone.first_channels`, `backbone.last_channels` and, of the stages i from 1,
    `backbone.layers.<i>.out_channels`, `.depth`, `.kernel_size` and `.expand_ratio`; in `fine_grained_mode` every block k
    from 0 has its own `backbone.layers.<i>.<k>.kernel_size` and `.expand_ratio`. What has one choice is no decision.

    Args:
        arch_setting: ranges `[min, max, step]`, or `{"choices": [...]}`, one for each stage in `kernel_size` and
            `num_blocks`; one more in `expand_ratio`, for the 1x1 convolution of `last_conv`, which has as many times the channels of the last stage;
            and two more in `num_out_channels`, the first for `first_conv`, the last for `last_conv`.
        widen_factor: multiplies all widths, which are made divisible by 8.
        out_indices: the stages whose outputs `forward` returns; `last_conv` counts as one.
        frozen_stages: keep `first_conv` and `layer1` to `layer<frozen_stages>` in eval mode and without gradients; -1 for
            none.
        conv_cfg, norm_cfg: of dynamic operations.
        act_cfg_list: of `first_conv`, the stages and `last_conv`; Swish unless given.
        stride_list, with_se_list: of the stages; those of AttentiveNAS unless given.
        zero_init_residual: let `init_weights` begin with residual branches that give zero.
        with_attentive_shortcut: add the input of every block to its output, through a `PooledShortcut` where shapes
            differ; otherwise where they are the same at all choices.
        norm_eval, with_cp, init_cfg: as in `SearchableShuffleNetV2`.

    Errors:
        ConfigError: ranges that are none or of another number than the stages; out_indices or frozen_stages that are no
            stages.

    Example:
        >>> from mutorch.mutators import Mutator
        >>> ranges = dict(kernel_size=[[3, 5, 2]], num_blocks=[[1, 2, 1]], expand_ratio=[[4, 6, 1], [6, 6, 1]])
        >>> ranges["num_out_channels"] = [[8, 8, 8], [8, 16, 8], [32, 64, 32]]
        >>> backbone = AttentiveMobileNetV3(ranges, stride_list=[2], with_se_list=[True], out_indices=(1,))
        >>> print(Mutator(backbone).space.report())
        backbone.layers.1.depth           2  1, 2
        backbone.layers.1.expand_ratio    3  4, 5, 6
        backbone.layers.1.kernel_size     2  3, 5
        backbone.layers.1.out_channels    2  8, 16
        backbone.last_channels            2  32, 64
        5 decisions, 48 architectures
    """

    def __init__(
        self,
        arch_setting: Mapping[str, Sequence[Range]],
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (7,),
        frozen_stages: int = -1,
        conv_cfg: Config = BIG_NAS_CONV,
        norm_cfg: Config = DYNAMIC_NORM,
        act_cfg_list: Sequence[Config] | None = None,
        stride_list: Sequence[int] | None = None,
        with_se_list: Sequence[bool] | None = None,
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        fine_grained_mode: bool = False,
        with_attentive_shortcut: bool = True,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        ranges = checked_ranges(arch_setting, KEYS)
        stages = len(ranges["num_blocks"])
        self.out_indices = checked_stages(out_indices, frozen_stages, stages + 1)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self.zero_init_residual, self.init_cfg = zero_init_residual, init_cfg

        kernels = checked_length("kernel_size", ranges["kernel_size"], stages, "one for each stage")
        ratios = checked_length("expand_ratio", ranges["expand_ratio"], stages + 1, "one for each stage and last_conv")
        widths = checked_length(
            "num_out_channels", ranges["num_out_channels"], stages + 2, "first_conv, each stage, last_conv"
        )
        acts = checked_length(
            "act_cfg_list",
            [{"type": "Swish"}] * (stages + 2) if act_cfg_list is None else act_cfg_list,
            stages + 2,
            "first_conv, each stage, last_conv",
        )
        strides = checked_length("stride_list", STRIDES if stride_list is None else stride_list, stages, "the stages")
        with_se = checked_length(
            "with_se_list", WITH_SE if with_se_list is None else with_se_list, stages, "the stages"
        )

        def width(number: int, alias: str) -> BaseMutableChannel:
            given = values_of(
                "num_out_channels", widths[number], lambda channels: make_divisible(channels * widen_factor, 8)
            )
            return width_of(given, f"backbone.{alias}")

        incoming = width(0, "first_channels")
        self.first_conv = conv_norm_act(
            3, incoming.num_channels, 3, 2, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=acts[0]
        )
        follow_(self.first_conv, None, incoming)
        self.layers: list[str] = []
        for number in range(1, stages + 1):
            outgoing = width(number, f"layers.{number}.out_channels")
            stage = _stage(
                f"backbone.layers.{number}",
                incoming,
                outgoing,
                kernels=values_of("kernel_size", kernels[number - 1]),
                depths=values_of("num_blocks", ranges["num_blocks"][number - 1]),
                ratios=values_of("expand_ratio", ratios[number - 1]),
                stride=strides[number - 1],
                fine_grained=fine_grained_mode,
                with_se=with_se[number - 1],
                conv_cfg=conv_cfg,
                norm_cfg=norm_cfg,
                act_cfg=acts[number],
                with_attentive_shortcut=with_attentive_shortcut,
                with_cp=with_cp,
            )
            self.add_module(f"layer{number}", stage)
            self.layers.append(f"layer{number}")
            incoming = outgoing
        ratio = value_of(values_of("expand_ratio", ratios[-1]), "backbone.last_expand_ratio")
        self.last_conv = _last_conv(
            incoming,
            incoming * ratio,
            width(-1, "last_channels"),
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=acts[-1],
        )
        self.layers.append("last_conv")
        self.train()

    @property
    def last_mutable(self) -> Any:
        """The mutable of the channels that `last_conv` gives, for a head to follow."""
        return self.last_conv.feature_mix_layer.conv.mutable_out_channels  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The features of `out_indices`, from an image (N, 3, H, W)."""
        x = self.first_conv(x)
        return features_of(x, (getattr(self, name) for name in self.layers), self.out_indices)

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for what is frozen and, with `norm_eval`, batch norms."""
        super().train(mode)
        if self.frozen_stages >= 0:
            freeze_([self.first_conv, *(getattr(self, name) for name in self.layers[: self.frozen_stages])])
        if mode and self.norm_eval:
            norms_eval_(self)
        return self

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """New weights of the largest network: Kaiming normal over the fan out; norms start at scale 1 and shift 0.

        With `zero_init_residual`, the last norm of a block whose input is added starts at scale 0. Matrices of kernels keep
        their values. Nothing happens where `init_cfg` says 'Pretrained'.

        Args:
            generator: what the weights are drawn from; torch's global one unless given.
        """
        if is_pretrained(self.init_cfg):
            return
        for _, module in convs_and_norms(self):
            weight, bias = whole_tensor(module, "weight"), whole_tensor(module, "bias")
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(weight, mode="fan_out", generator=generator)
            elif weight is not None:
                nn.init.ones_(weight)
            if bias is not None:
                nn.init.zeros_(bias)
        for block in self.modules() if self.zero_init_residual else ():
            if isinstance(block, MBBlock) and (block.with_res_shortcut or block.shortcut is not None):
                weight = whole_tensor(block.linear_conv[1], "weight")
                if weight is not None:
                    nn.init.zeros_(weight)


def _stage(
    name: str,
    in_width: Width,
    out_width: Width,
    *,
    kernels: list[Any],
    depths: list[Any],
    ratios: list[Any],
    stride: int,
    fine_grained: bool,
    **block: Any,
) -> Repeat:
    """The first so many of a stage's blocks."""
    depth = value_of(depths, f"{name}.depth")
    kernel_size, expand_ratio = value_of(kernels, f"{name}.kernel_size"), value_of(ratios, f"{name}.expand_ratio")
    blocks = []
    for number in range(largest(depth)):
        if fine_grained:
            kernel_size = value_of(kernels, f"{name}.{number}.kernel_size")
            expand_ratio = value_of(ratios, f"{name}.{number}.expand_ratio")
        entering, step = (out_width, 1) if number else (in_width, stride)
        blocks.append(elastic_mb_block(entering, out_width, kernel_size, expand_ratio, step, **block))
    return Repeat(blocks, depth)


def _last_conv(
    in_width: Width, middle: DerivedMutable, out_width: Width, *, conv_cfg: Config, norm_cfg: Config, act_cfg: Config
) -> nn.Sequential:
    expand = conv_norm_act(
        in_width.num_channels, middle.num_channels, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg
    )
    bare = {**conv_cfg, "bias": False}
    mix = conv_norm_act(middle.num_channels, out_width.num_channels, 1, conv_cfg=bare, norm_cfg=None, act_cfg=act_cfg)
    follow_(expand, in_width, middle)
    follow_(mix, middle, out_width)
    return nn.Sequential(OrderedDict(final_expand_layer=expand, pool=nn.AdaptiveAvgPool2d(1), feature_mix_layer=mix))
