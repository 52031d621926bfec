"""From features to logits."""

from torch import Tensor, nn


class LinearClsHead(nn.Module):
    """Logits from the last feature: global average pool, then a linear layer.

    Takes a feature (N, C, H, W), or (N, C), which needs no pool, or, as backbones return them, a tuple of features; gives
    (N, num_classes).

    Example:
        >>> import torch
        >>> LinearClsHead(num_classes=10, in_channels=8)((torch.ones(2, 8, 4, 4),)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, features: Tensor | tuple[Tensor, ...] | list[Tensor]) -> Tensor:
        last = features if isinstance(features, Tensor) else features[-1]
        logits: Tensor = self.fc(last if last.dim() == 2 else self.pool(last).flatten(1))
        return logits
