"""The micro search space of ENAS: two cells, of which a network is stacked."""

import torch
from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.mutables import InputChoice, LayerChoice, MutableScope

from .act_conv_norm import act_conv_norm
from .conv_norm_act import conv_norm_act
from .darts_operations import DartsSepConv
from .factorized_reduce import FactorizedReduce


class EnasMicro(nn.Module):
    """A stem and cells; the cells after a third and two thirds halve the size and double the width (arXiv 1802.03268, 2.4).

    All normal cells share their decisions, and so do the two reduction cells. Node `i`, counted from 2, adds two operations
    on two tensors before it: which tensors is said by `normal_node_<i>_input_x` and `..._input_y` (0 and 1 are the outputs of the
    two cells before), which operations by `normal_node_<i>_op_x` and `..._op_y`: `sep3`, `sep5`, `avgpool`, `maxpool` or `skip`;
    `reduce_node_...` likewise. An operation has the same weights for whichever tensor it is given.

    A cell's output joins all of its nodes. The paper joins those that no other node takes, whose number, and so the width of
    everything behind them, would depend on all inputs of the cell together.

    The defaults are those of the published search on CIFAR-10.

    Args:
        in_channels: of the images.
        num_cells: normal cells; there are two reduction cells more. 3 at least.
        channels: of a node in the first cells; even.
        num_nodes: of a cell.
        dropout: before the classifier.

    Errors:
        ConfigError: fewer than three cells.

    Example:
        >>> import torch
        >>> from mutorch.mutators import Mutator
        >>> net = EnasMicro(num_cells=3, channels=4, num_nodes=2)
        >>> Mutator(net).space.names[:4]
        ('normal_node_2_input_x', 'normal_node_2_op_x', 'normal_node_2_input_y', 'normal_node_2_op_y')
        >>> net(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        num_cells: int = 6,
        channels: int = 20,
        num_nodes: int = 5,
        *,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_cells < 3:
            raise ConfigError(f"EnasMicro has three stages and needs num_cells of at least 3, got {num_cells}")
        self.stem = conv_norm_act(in_channels, 3 * channels, 3, act_cfg=None)
        before = last = 3 * channels
        halved = False
        self.cells = nn.ModuleList()
        places = (num_cells // 3, 2 * num_cells // 3 + 1)
        for number in range(num_cells + 2):
            reduction = number in places
            channels *= 2 if reduction else 1
            self.cells.append(EnasCell((before, last), channels, num_nodes, reduction=reduction, halved_before=halved))
            before, last, halved = last, num_nodes * channels, reduction
        self.head = nn.Sequential(
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(last, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, in_channels, H, W)."""
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        logits: Tensor = self.head(last)
        return logits


class EnasCell(MutableScope):
    """A cell: both inputs are brought to one shape, each node adds two operations, and the nodes' outputs are joined.

    Args:
        in_channels: of the output of the cell before the last one, and of the last one.
        reduction: whether the cell halves the size; its key is `reduce`, else `normal`.
        halved_before: whether the last cell did, so that the output of the one before it is twice as large.

    Example:
        >>> EnasCell((4, 4), 8, 2, reduction=True).key
        'reduce'
    """

    def __init__(
        self,
        in_channels: tuple[int, int],
        channels: int,
        num_nodes: int,
        *,
        reduction: bool = False,
        halved_before: bool = False,
    ) -> None:
        kind = "reduce" if reduction else "normal"
        super().__init__(kind)
        first, second = in_channels
        self.preproc0 = _entrance(first, channels, halvings=reduction + halved_before)
        self.preproc1 = _entrance(second, channels, halvings=int(reduction))
        self.nodes = nn.ModuleList(EnasNode(kind, number, channels) for number in range(2, 2 + num_nodes))

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """The output for the outputs of the two cells before."""
        tensors = [self.preproc0(before), self.preproc1(last)]
        for node in self.nodes:
            tensors.append(node(list(tensors)))
        return torch.cat(tensors[2:], dim=1)


class EnasNode(MutableScope):
    """A node of a cell: the sum of two operations, each on one of the tensors before it.

    Args:
        kind: of the cell.
        number: of the node, which has as many tensors before it.

    Example:
        >>> node = EnasNode("normal", 3, 4)
        >>> node.key, node.input_x.choose_from
        ('normal_node_3', ['', '', 'normal_node_2'])
    """

    def __init__(self, kind: str, number: int, channels: int) -> None:
        key = f"{kind}_node_{number}"
        super().__init__(key)
        sources = [InputChoice.NO_KEY] * 2 + [f"{kind}_node_{earlier}" for earlier in range(2, number)]
        self.input_x = InputChoice(choose_from=sources, n_chosen=1, key=f"{key}_input_x")
        self.op_x = LayerChoice(enas_micro_candidates(channels), key=f"{key}_op_x")
        self.input_y = InputChoice(choose_from=sources, n_chosen=1, key=f"{key}_input_y")
        self.op_y = LayerChoice(enas_micro_candidates(channels), key=f"{key}_op_y")

    def forward(self, tensors: list[Tensor]) -> Tensor:
        """The output for all tensors before."""
        total: Tensor = self.op_x(self.input_x(tensors)) + self.op_y(self.input_y(tensors))
        return total


def enas_micro_candidates(channels: int) -> dict[str, nn.Module]:
    """The five operations of `EnasMicro`; names to modules.

    Example:
        >>> list(enas_micro_candidates(4))
        ['sep3', 'sep5', 'avgpool', 'maxpool', 'skip']
    """
    return {
        "sep3": DartsSepConv(channels, channels, 3),
        "sep5": DartsSepConv(channels, channels, 5),
        "avgpool": nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
        "maxpool": nn.MaxPool2d(3, 1, padding=1),
        "skip": nn.Identity(),
    }


def _entrance(in_channels: int, channels: int, *, halvings: int) -> nn.Module:
    """From an earlier cell's output to the cell's width and size."""
    if not halvings:
        return act_conv_norm(in_channels, channels, 1)
    reductions = [FactorizedReduce(in_channels if number == 0 else channels, channels) for number in range(halvings)]
    return reductions[0] if halvings == 1 else nn.Sequential(*reductions)
