"""The network of DARTS, to search in or built from found cells."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from mutorch.errors import ChoiceError, ConfigError, nearest
from mutorch.mutables import SummedModules, build_candidates
from mutorch.registry import MODELS

from .act_conv_norm import act_conv_norm
from .backbone import checked_stages
from .conv_norm_act import BATCH_NORM, RELU, Config, conv_norm_act
from .darts_auxiliary import DartsAuxiliary
from .darts_cell import BuildNode, DartsCell
from .darts_genotype import FIRST_NODE, GENOTYPES, DartsGenotype

Stem = Literal["cifar", "imagenet"]
STEMS = ("cifar", "imagenet")


class DartsConfigError(ConfigError, AssertionError):
    """Arguments of `DartsBackbone` that do not go together."""


class DartsBackbone(nn.Module):
    """A stem and `num_layers` cells; the cells at a third and at two thirds halve the size and double the width.

    All normal cells share their decisions, and so do all reduction cells (arXiv 1806.09055): `normal_n<i>` says which
    tensors node `i` reads, `normal_n<i>_p<j>` through which operation it reads tensor `j`; `reduce_...` likewise. Nodes
    are numbered from 2; tensors 0 and 1 are the outputs of the two cells before.

    Args:
        in_channels: of the images.
        base_channels: of one node in the first cell; a cell has `num_nodes` times that.
        mutable_cfg: config of an edge, with `candidates`; any module mutable. `darts_setting` has DARTS's own.
        route_cfg: config of a node, which gets the edges as `edges`.
        stem_multiplier: width of CIFAR's stem, in base_channels.
        out_indices: the cells whose outputs `forward` returns; the last cell must be the last of them.
        auxiliary: also give the feature of the second classifier, first and in training mode only; see
            `DartsAuxiliary`, whose two widths are `aux_channels` and `aux_out_channels`.
        act_cfg, norm_cfg: of stem, cell inputs and auxiliary classifier; candidates have their own.
        stem: `"cifar"`, one convolution, or `"imagenet"`, which reduces by 8.
        genotype: cells that are decided already, or the name of published ones: only their operations are built, as
            `candidates` of `mutable_cfg` say, and `route_cfg` is not needed.

    Errors:
        DartsConfigError: out_indices that do not end with the last cell; `auxiliary` without its widths; neither
            route_cfg nor genotype (a `ConfigError`, and an `AssertionError` for users of the older libraries).
        ConfigError: out_indices, or a stem, that do not exist.
        ChoiceError: a genotype that is not published, or an operation of one that is no candidate.

    Example:
        >>> import torch
        >>> from mutorch.models import darts_setting
        >>> setting = darts_setting(base_channels=4, num_layers=3, genotype="DARTS_V2")
        >>> [tuple(feature.shape) for feature in MODELS.build(setting)(torch.ones(2, 3, 16, 16))]
        [(2, 64, 4, 4)]
    """

    def __init__(
        self,
        in_channels: int,
        base_channels: int,
        mutable_cfg: Config,
        route_cfg: Config | None = None,
        num_layers: int = 8,
        num_nodes: int = 4,
        stem_multiplier: int = 3,
        out_indices: Sequence[int] = (7,),
        auxliary: bool = False,
        aux_channels: int | None = None,
        aux_out_channels: int | None = None,
        act_cfg: Config = RELU,
        norm_cfg: Config | None = BATCH_NORM,
        *,
        stem: Stem = "cifar",
        genotype: DartsGenotype | str | None = None,
    ) -> None:
        super().__init__()
        self.out_indices = checked_stages(out_indices, -1, num_layers)
        if not self.out_indices or self.out_indices[-1] != num_layers - 1:
            raise DartsConfigError(
                f"out_indices must end with the last cell, {num_layers - 1} of {num_layers} layers, got {out_indices}"
            )
        build_node = _node_builder(mutable_cfg, route_cfg, genotype)
        imagenet = _check_stem(stem)
        self.stem = (
            _imagenet_stem(in_channels, base_channels, norm_cfg, act_cfg)
            if imagenet
            else conv_norm_act(in_channels, stem_multiplier * base_channels, 3, norm_cfg=norm_cfg, act_cfg=None)
        )
        before = last = base_channels * (1 if imagenet else stem_multiplier)
        channels, reduction_before = base_channels, imagenet
        self.cells = nn.ModuleList()
        self.aux_index = 2 * num_layers // 3
        self.auxiliary: DartsAuxiliary | None = None
        for number in range(num_layers):
            reduction = number in (num_layers // 3, 2 * num_layers // 3)
            channels *= 2 if reduction else 1
            cell = DartsCell(
                (before, last),
                channels,
                build_node,
                num_nodes=num_nodes,
                reduction=reduction,
                reduction_before=reduction_before,
                norm_cfg=norm_cfg,
                act_cfg=act_cfg,
            )
            self.cells.append(cell)
            before, last, reduction_before = last, num_nodes * channels, reduction
            if auxliary and number == self.aux_index:
                self.auxiliary = _auxiliary(last, aux_channels, aux_out_channels, norm_cfg, imagenet)
        self.out_channels = last

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The features of `out_indices`, from images (N, in_channels, H, W); in training the auxiliary one first."""
        if isinstance(self.stem, _TwoStems):
            before, last = self.stem(x)
        else:
            before = last = self.stem(x)
        features = []
        auxiliary = []
        for number, cell in enumerate(self.cells):
            before, last = last, cell(before, last)
            if number in self.out_indices:
                features.append(last)
            if number == self.aux_index and self.auxiliary is not None and self.training:
                auxiliary.append(self.auxiliary(last))
        return (*auxiliary, *features)


class _TwoStems(nn.Module):
    """A quarter of the size, and an eighth: the two inputs of the first cell."""

    def __init__(self, stem0: nn.Module, stem1: nn.Module) -> None:
        super().__init__()
        self.stem0 = stem0
        self.stem1 = stem1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quarter = self.stem0(x)
        return quarter, self.stem1(quarter)


def _imagenet_stem(in_channels: int, channels: int, norm_cfg: Config | None, act_cfg: Config) -> _TwoStems:
    stem0 = nn.Sequential(
        conv_norm_act(in_channels, channels // 2, 3, 2, norm_cfg=norm_cfg, act_cfg=act_cfg),
        conv_norm_act(channels // 2, channels, 3, 2, norm_cfg=norm_cfg, act_cfg=None),
    )
    return _TwoStems(stem0, act_conv_norm(channels, channels, 3, 2, norm_cfg=norm_cfg, act_cfg=act_cfg))


def _check_stem(stem: str) -> bool:
    if stem not in STEMS:
        raise ConfigError(f"DartsBackbone has no stem {stem!r}; {nearest(stem, STEMS)}")
    return stem == "imagenet"


def _auxiliary(
    channels: int, middle: int | None, out: int | None, norm_cfg: Config | None, imagenet: bool
) -> DartsAuxiliary:
    if middle is None or out is None:
        raise DartsConfigError(
            f"auxliary=True needs aux_channels and aux_out_channels, got {middle} and {out}; DARTS has 128 and 768"
        )
    return DartsAuxiliary(channels, middle, out, stride=2 if imagenet else 3, last_norm=not imagenet, norm_cfg=norm_cfg)


def _node_builder(mutable_cfg: Config, route_cfg: Config | None, genotype: DartsGenotype | str | None) -> BuildNode:
    if not isinstance(mutable_cfg, Mapping) or not isinstance(mutable_cfg.get("candidates"), Mapping):
        # A built module would be one module at several places.
        raise DartsConfigError(f"mutable_cfg must be a config with `candidates`, got {mutable_cfg!r}")
    if genotype is not None:
        return _FixedNodes(mutable_cfg["candidates"], _published(genotype))
    if route_cfg is None:
        raise DartsConfigError("give route_cfg to search, e.g. dict(type='DiffChoiceRoute'), or a genotype")
    return _SearchableNodes(mutable_cfg, route_cfg)


def _published(genotype: DartsGenotype | str) -> DartsGenotype:
    if isinstance(genotype, DartsGenotype):
        return genotype
    if genotype not in GENOTYPES:
        raise ChoiceError(f"there is no genotype {genotype!r}; {nearest(genotype, GENOTYPES)}")
    return GENOTYPES[genotype]


def _arguments(channels: int, reduction: bool, tensor: int) -> dict[str, Any]:
    # Only the two cells before are larger than the nodes of a reduction cell.
    return {
        "in_channels": channels,
        "out_channels": channels,
        "stride": 2 if reduction and tensor < FIRST_NODE else 1,
    }


class _SearchableNodes:
    """Nodes that are routes over mutables."""

    def __init__(self, mutable_cfg: Config, route_cfg: Config) -> None:
        self._mutable_cfg = mutable_cfg
        self._route_cfg = route_cfg

    def __call__(self, kind: str, number: int, channels: int, reduction: bool) -> nn.Module:
        node = f"{kind}_n{number}"
        edges = nn.ModuleDict()
        for tensor in range(number):
            name = f"{node}_p{tensor}"
            config = {**self._mutable_cfg, "alias": name}
            edges[name] = build_candidates({name: config}, _arguments(channels, reduction, tensor))[name]
        route: nn.Module = MODELS.build({**self._route_cfg, "edges": edges, "alias": node})
        return route


class _FixedNodes:
    """Nodes as a genotype has them."""

    def __init__(self, candidates: Mapping[str, Any], genotype: DartsGenotype) -> None:
        self._candidates = candidates
        self._genotype = genotype

    def __call__(self, kind: str, number: int, channels: int, reduction: bool) -> nn.Module:
        cell = self._genotype.reduce if reduction else self._genotype.normal
        if number - FIRST_NODE >= len(cell):
            raise ConfigError(f"the genotype's {kind} cell has {len(cell)} nodes; num_nodes must be that, got more")
        edges: dict[str, nn.Module] = {}
        node = f"{kind}_n{number}"
        for tensor, operation in cell[number - FIRST_NODE]:
            if operation not in self._candidates:
                raise ChoiceError(
                    f"node {node} of the genotype has operation {operation!r}, which is no candidate; "
                    f"{nearest(operation, self._candidates)}"
                )
            config = {operation: self._candidates[operation]}
            edges[f"{node}_p{tensor}"] = build_candidates(config, _arguments(channels, reduction, tensor))[operation]
        return SummedModules(edges, [tensor for tensor, _ in cell[number - FIRST_NODE]])
