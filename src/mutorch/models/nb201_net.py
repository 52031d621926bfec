"""The network of NAS-Bench-201: a searchable cell in a fixed skeleton."""

from collections.abc import Mapping

from torch import Tensor, nn

from mutorch.errors import ConfigError
from mutorch.mutables import build_candidates

from .conv_norm_act import BATCH_NORM, Config, build_norm, conv_norm_act
from .nb201_operations import NB201Conv

NUM_NODES = 4
EDGES = tuple((node, before) for node in range(1, NUM_NODES) for before in range(node))
"""The edges of a cell in the order of the benchmark's names: (1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)."""


class NB201Cell(nn.Module):
    """Four nodes, of which node 0 is the input and the last the output; each is the sum of an edge from every one before.

    Args:
        mutable_cfg: config of an edge; a mutable gets the alias `n<node>_p<before>`, so that cells share their decisions.
    """

    def __init__(self, channels: int, mutable_cfg: Config) -> None:
        super().__init__()
        arguments = {"in_channels": channels, "out_channels": channels, "stride": 1}
        self.edges = nn.ModuleDict()
        for name in map(edge_name, EDGES):
            self.edges[name] = build_candidates({name: {**mutable_cfg, "alias": name}}, arguments)[name]

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for node in range(1, NUM_NODES):
            outputs = [self.edges[edge_name((node, before))](nodes[before]) for before in range(node)]
            nodes.append(sum(outputs[1:], start=outputs[0]))
        return nodes[-1]


class NB201Reduction(nn.Module):
    """The residual block between stages: two 3x3 convolutions, the first of stride 2, and a pooled shortcut."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: Config) -> None:
        super().__init__()
        self.conv1 = NB201Conv(in_channels, out_channels, 3, 2, norm_cfg=norm_cfg)
        self.conv2 = NB201Conv(out_channels, out_channels, 3, norm_cfg=norm_cfg)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.conv2(self.conv1(x))
        return out


class NB201Net(nn.Module):
    """Images (N, 3, H, W) to logits (N, num_classes), through three stages of equal cells (arXiv 2001.00326, figure 1).

    Six decisions `n1_p0`, `n2_p0`, ... `n3_p2`, shared by all cells: with five operations 15 625 architectures. H and W
    are multiples of 4, 32 in the benchmark.

    Args:
        mutable_cfg: config of an edge, a module mutable with `candidates`; `nb201_setting` has the benchmark's.
        base_channels: of the first stage; each further one has twice as many.
        num_cells: of one stage.
        norm_cfg: of the skeleton; candidates have their own.

    Errors:
        ConfigError: a mutable_cfg that is no config with candidates.

    Example:
        >>> from mutorch.models import nb201_setting
        >>> from mutorch.mutators import Mutator
        >>> from mutorch.registry import MODELS
        >>> Mutator(MODELS.build(nb201_setting(num_cells=1)))
        Mutator(SearchSpace(6 decisions, 15625 architectures))
    """

    def __init__(
        self,
        mutable_cfg: Config,
        num_classes: int = 10,
        base_channels: int = 16,
        num_cells: int = 5,
        norm_cfg: Config = BATCH_NORM,
    ) -> None:
        super().__init__()
        if not isinstance(mutable_cfg, Mapping) or "candidates" not in mutable_cfg:
            # A built module would be one module at several places.
            raise ConfigError(f"mutable_cfg must be a config with `candidates`, got {mutable_cfg!r}")
        widths = [base_channels * 2**stage for stage in range(3)]
        self.stem = conv_norm_act(3, widths[0], 3, norm_cfg=norm_cfg, act_cfg=None)
        self.layers = nn.Sequential()
        for stage, channels in enumerate(widths):
            if stage:
                self.layers.append(NB201Reduction(widths[stage - 1], channels, norm_cfg))
            for _ in range(num_cells):
                self.layers.append(NB201Cell(channels, mutable_cfg))
        self.last = nn.Sequential(build_norm(norm_cfg, widths[-1])[1], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.last(self.layers(self.stem(images))))
        return logits


def edge_name(edge: tuple[int, int]) -> str:
    """`n<node>_p<before>`, the decision of an edge."""
    node, before = edge
    return f"n{node}_p{before}"
