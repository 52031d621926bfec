"""Where one patch of an image lies as seen from another, as learned vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .op import Attr, DynamicOp


class RelativePosition2D(nn.Module):
    """A vector for each pair of positions of a sequence: a class token, then the patches of a square image, row by row.

    It is the sum of one for the rows between the two and one for the columns; further away than the maximum counts as the
    maximum. The class token has a vector of its own.

    Args:
        head_dims: the length of a vector.
        max_relative_position: the largest distance that is told apart.
    """

    def __init__(self, head_dims: int, max_relative_position: int = 14) -> None:
        super().__init__()
        self.head_dims = head_dims
        self.max_relative_position = max_relative_position
        self.embeddings_table_v = nn.Parameter(torch.empty(max_relative_position * 2 + 2, head_dims))
        self.embeddings_table_h = nn.Parameter(torch.empty(max_relative_position * 2 + 2, head_dims))
        for table in (self.embeddings_table_v, self.embeddings_table_h):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, length_q: int, length_k: int) -> Tensor:
        """The vectors, shape (`length_q`, `length_k`, `head_dims`); lengths count the class token."""
        table_v, table_h = self.embeddings_table_v, self.embeddings_table_h
        side = int((length_q - 1) ** 0.5)
        of_query = torch.arange(length_q - 1, device=table_v.device)[:, None]
        of_key = torch.arange(length_k - 1, device=table_v.device)[None, :]
        rows = self._index(of_key // side - of_query // side)
        columns = self._index(of_key % side - of_query % side)
        return table_v[rows] + table_h[columns]

    def _index(self, distance: Tensor) -> Tensor:
        most = self.max_relative_position
        return nn.functional.pad(distance.clamp(-most, most) + most + 1, (1, 0, 1, 0))  # 0 for the class token


class DynamicRelativePosition2D(DynamicOp, RelativePosition2D):
    """A `RelativePosition2D` whose `head_dims` can be decided."""

    static_class = RelativePosition2D
    attrs = {"head_dims": Attr((("embeddings_table_v", 1), ("embeddings_table_h", 1)), "head_dims")}
    aliases = {"in_channels": "head_dims", "out_channels": "head_dims"}
