"""Logits of DARTS, in training also of its second classifier."""

from collections.abc import Sequence

from torch import Tensor, nn

from mutorch.errors import StateError

from .linear_cls_head import LinearClsHead


class DartsClsHead(LinearClsHead):
    """As `LinearClsHead`; in training mode, where the backbone gives an auxiliary feature, `(logits, auxiliary logits)`.

    DARTS trains with `cross_entropy(logits, y) + 0.4 * cross_entropy(auxiliary, y)` (arXiv 1806.09055, section 3.2).

    Args:
        aux_in_channels: of the auxiliary feature, `aux_out_channels` of the backbone; `None` where it gives none.

    Errors:
        StateError: in training mode, features without the auxiliary one.

    Example:
        >>> import torch
        >>> head = DartsClsHead(10, 64, aux_in_channels=16)
        >>> features = torch.ones(2, 16, 1, 1), torch.ones(2, 64, 4, 4)
        >>> [tuple(logits.shape) for logits in head(features)], tuple(head.eval()(features[1:]).shape)
        ([(2, 10), (2, 10)], (2, 10))
    """

    def __init__(self, num_classes: int, in_channels: int, aux_in_channels: int | None = None) -> None:
        super().__init__(num_classes, in_channels)
        self.fc_aux = None if aux_in_channels is None else nn.Linear(aux_in_channels, num_classes)

    def forward(  # type: ignore[override]  # two in training
        self, features: Tensor | Sequence[Tensor]
    ) -> Tensor | tuple[Tensor, Tensor]:
        logits = super().forward(features)  # type: ignore[arg-type]
        if self.fc_aux is None or not self.training:
            return logits
        if isinstance(features, Tensor) or len(features) < 2:
            raise StateError(
                "the head has an auxiliary classifier, but the backbone gives no feature for it; auxliary=True"
            )
        return logits, self.fc_aux(self.pool(features[0]).flatten(1))
