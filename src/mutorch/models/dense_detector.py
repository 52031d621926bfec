"""A small detector: every cell of a feature map says what is there, and where it ends."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mutorch.errors import ConfigError
from mutorch.registry import MODELS

from .conv_norm_act import BATCH_NORM, RELU, Config, conv_norm_act

PRIOR = 0.01
"""The probability that an untrained detector gives every class everywhere (arXiv 1708.02002)."""


class DenseDetector(nn.Module):
    """Images (N, C, H, W) to a class map and a box map, one stage and without anchors (FCOS, arXiv 1904.01355, on one scale).

    Backbone, `neck` (one convolution), `class_head` and `box_head`. For a feature map of (h, w), gives two tensors:
    class logits (N, num_classes, h, w), each class a sigmoid of its own, and boxes (N, 4, h, w), the (x1, y1, x2, y2) in pixels of
    what is at the cell. `detection_loss` trains it, `detections` makes boxes of the maps. A subset of the outputs of the
    paper: no centre-ness, for which only cells near the middle of a box are trained to see it.

    Args:
        backbone: a module, or the config of one, that gives a feature map, or several, of which the last counts.
        num_classes: how many kinds of things there are; "nothing" is none of them.
        in_channels: of the feature map.
        neck_channels, neck_kernel_size: of the neck.
        norm_cfg, act_cfg: of the neck; see `conv_norm_act`.

    Errors:
        ConfigError: fewer than one class; and, when called, a backbone whose last output is no feature map of `in_channels`.

    Example:
        >>> backbone = nn.Conv2d(1, 8, 3, stride=4, padding=1)
        >>> logits, boxes = DenseDetector(backbone, num_classes=10, in_channels=8)(torch.zeros(2, 1, 40, 40))
        >>> tuple(logits.shape), tuple(boxes.shape)
        ((2, 10, 10, 10), (2, 4, 10, 10))
    """

    def __init__(
        self,
        backbone: nn.Module | dict[str, Any],
        num_classes: int,
        in_channels: int,
        *,
        neck_channels: int = 24,
        neck_kernel_size: int = 1,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config | None = RELU,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"num_classes must be at least 1, got {num_classes}")
        self.in_channels = in_channels
        self.backbone: nn.Module = MODELS.build(backbone)
        self.neck = conv_norm_act(in_channels, neck_channels, neck_kernel_size, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.class_head = nn.Conv2d(neck_channels, num_classes, 3, padding=1)
        self.box_head = nn.Conv2d(neck_channels, 4, 3, padding=1)
        # A detector that starts by seeing something everywhere first unlearns that, and little else.
        nn.init.constant_(self.class_head.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits and boxes of every cell; see the class."""
        features = self.backbone(images)
        last = features if isinstance(features, Tensor) else features[-1]
        if last.dim() != 4 or last.shape[1] != self.in_channels:
            raise ConfigError(
                f"the backbone must give a feature map (N, {self.in_channels}, h, w), in_channels={self.in_channels}; it gave "
                f"{tuple(last.shape)}"
            )
        x = self.neck(last)
        # How far left, top, right and bottom are, in cells.
        left_top, right_bottom = F.softplus(self.box_head(x)).chunk(2, dim=1)
        height, width = images.shape[2:]
        centres, cell = cell_centres(x, (height, width))
        boxes = torch.cat([centres - left_top * cell, centres + right_bottom * cell], dim=1)
        return self.class_head(x), boxes


def cell_centres(feature: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The middles of the cells of a map, x and y (1, 2, h, w), and the size of a cell (1, 2, 1, 1), in pixels.

    Args:
        feature: any map (N, C, h, w), for its size, type and device.
        image_size: height and width of the image that the map covers.

    Example:
        >>> centres, cell = cell_centres(torch.zeros(1, 1, 1, 2), (4, 8))
        >>> centres.flatten(2).tolist(), cell.flatten().tolist()
        ([[[2.0, 6.0], [2.0, 2.0]]], [4.0, 4.0])
    """
    height, width = feature.shape[2:]
    cell_height, cell_width = image_size[0] / height, image_size[1] / width
    x = (torch.arange(width, dtype=feature.dtype, device=feature.device) + 0.5) * cell_width
    y = (torch.arange(height, dtype=feature.dtype, device=feature.device) + 0.5) * cell_height
    centres = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    cell = torch.tensor([cell_width, cell_height], dtype=feature.dtype, device=feature.device)
    return centres[None], cell.view(1, 2, 1, 1)
