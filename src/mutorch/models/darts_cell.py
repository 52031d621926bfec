"""The cell of DARTS: nodes that each sum over some of the tensors before them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .act_conv_norm import act_conv_norm
from .conv_norm_act import BATCH_NORM, RELU, Config
from .factorized_reduce import FactorizedReduce

BuildNode = Callable[[str, int, int, bool], nn.Module]
"""From kind of cell (`"normal"`, `"reduce"`), number of the node, channels and whether the cell reduces, to the node.

A node takes the list of all tensors before it; where the cell reduces, inputs 0 and 1 are to be halved.
"""


class DartsCell(nn.Module):
    """Two inputs to one output with `num_nodes * channels` channels (arXiv 1806.09055, section 2.1).

    Both inputs are brought to `channels` (`preproc0`, `preproc1`); node `i` gets these two and all nodes before it;
    the nodes' outputs are put one behind the other.

    Args:
        in_channels: of the output of the cell before the last one, and of the last one.
        reduction: whether this cell halves the size.
        reduction_before: whether input 0 is twice as large as input 1, and must be halved first.
        norm_cfg, act_cfg: of the two input layers.
    """

    def __init__(
        self,
        in_channels: tuple[int, int],
        channels: int,
        build_node: BuildNode,
        *,
        num_nodes: int = 4,
        reduction: bool = False,
        reduction_before: bool = False,
        norm_cfg: Config | None = BATCH_NORM,
        act_cfg: Config = RELU,
    ) -> None:
        super().__init__()
        first, second = in_channels
        self.preproc0: nn.Module = (
            FactorizedReduce(first, channels, norm_cfg=norm_cfg, act_cfg=act_cfg)
            if reduction_before
            else act_conv_norm(first, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        )
        self.preproc1 = act_conv_norm(second, channels, 1, norm_cfg=norm_cfg, act_cfg=act_cfg)
        kind = "reduce" if reduction else "normal"
        self.nodes = nn.ModuleList(build_node(kind, number, channels, reduction) for number in range(2, 2 + num_nodes))

    def forward(self, x0: Tensor, x1: Tensor) -> Tensor:
        states = [self.preproc0(x0), self.preproc1(x1)]
        for node in self.nodes:
            states.append(node(list(states)))
        return torch.cat(states[2:], dim=1)
