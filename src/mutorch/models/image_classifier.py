"""A backbone with a head."""

from typing import Any

from torch import Tensor, nn

from mutorch.registry import MODELS


class ImageClassifier(nn.Module):
    """Images (N, 3, H, W) to logits (N, num_classes); backbone and head are modules, or configs of them.

    Example:
        >>> from mutorch.models import shufflenet_v2_setting
        >>> head = dict(type="LinearClsHead", num_classes=1000, in_channels=1024)
        >>> model = ImageClassifier(shufflenet_v2_setting(), head)
        >>> sum(p.numel() for p in model.parameters())
        2278604
    """

    def __init__(self, backbone: nn.Module | dict[str, Any], head: nn.Module | dict[str, Any]) -> None:
        super().__init__()
        self.backbone: nn.Module = MODELS.build(backbone)
        self.head: nn.Module = MODELS.build(head)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits
