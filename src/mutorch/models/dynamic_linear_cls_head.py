"""A classifier's head that follows the width of its backbone."""

from typing import Any

from mutorch.ops import DynamicLinear

from .linear_cls_head import LinearClsHead


class DynamicLinearClsHead(LinearClsHead):
    """A `LinearClsHead` whose inputs a mutable may decide.

    Example:
        >>> import torch
        >>> from mutorch.mutables import OneShotMutableChannel
        >>> head, width = DynamicLinearClsHead(num_classes=10, in_channels=8), OneShotMutableChannel(8, [4, 8])
        >>> head.connect_with_backbone(width)
        >>> width.current_choice = 4
        >>> head(torch.ones(2, 4, 3, 3)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        self.fc: DynamicLinear = DynamicLinear.convert_from(self.fc)

    def connect_with_backbone(self, backbone_output_mutable: Any) -> None:
        """Let the mutable of the backbone's last channels decide the inputs.

        Errors:
            ChoiceError: a mutable without channels, or with another number of them than `in_channels`.
        """
        self.fc.register_mutable_attr("in_features", backbone_output_mutable)
