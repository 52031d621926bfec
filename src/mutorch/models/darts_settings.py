"""The published networks and the search space of DARTS, as configs and as networks."""

from typing import Any

from torch import nn

from .conv_norm_act import BATCH_NORM, Config
from .darts_backbone import DartsBackbone, Stem
from .darts_genotype import DartsGenotype
from .darts_head import DartsClsHead
from .drop_path import set_drop_path_rate_
from .image_classifier import ImageClassifier

AUX_CHANNELS = 128, 768


def darts_candidates(
    norm_cfg: Config | None = BATCH_NORM, *, pool_norm_cfg: Config | None = BATCH_NORM, use_drop_path: bool = False
) -> dict[str, dict[str, Any]]:
    """The eight operations of DARTS (arXiv 1806.09055, section 3.1), by name, as configs of candidates.

    Args:
        norm_cfg: of convolutions.
        pool_norm_cfg: of pooling; the published networks have none (`None`).
        use_drop_path: leave operations out in training.

    Example:
        >>> list(darts_candidates())[:4]
        ['zero', 'skip_connect', 'max_pool_3x3', 'avg_pool_3x3']
    """
    norm = None if norm_cfg is None else dict(norm_cfg)
    pool_norm = None if pool_norm_cfg is None else dict(pool_norm_cfg)
    candidates: dict[str, dict[str, Any]] = {
        "zero": {"type": "DartsZero"},
        "skip_connect": {"type": "DartsSkipConnect", "norm_cfg": norm, "use_drop_path": use_drop_path},
    }
    for pool in ("max", "avg"):
        candidates[f"{pool}_pool_3x3"] = {
            "type": "DartsPoolBN",
            "pool_type": pool,
            "norm_cfg": pool_norm,
            "use_drop_path": use_drop_path,
        }
    for kind, name in (("DartsSepConv", "sep"), ("DartsDilConv", "dil")):
        for size in (3, 5):
            candidates[f"{name}_conv_{size}x{size}"] = {
                "type": kind,
                "kernel_size": size,
                "norm_cfg": norm,
                "use_drop_path": use_drop_path,
            }
    return candidates


def darts_setting(
    *,
    mutable: str = "DiffMutableOP",
    route: str = "DiffChoiceRoute",
    base_channels: int = 16,
    num_layers: int = 8,
    stem: Stem = "cifar",
    genotype: DartsGenotype | str | None = None,
) -> dict[str, Any]:
    """The search space of DARTS: 14 edges with 8 operations and 4 nodes, in a normal and in a reduction cell.

    Batch norms are not affine: a learned scale would work against the gate of its operation. Features have `16 * base_channels` channels.

    Args:
        mutable: what chooses an operation; `"OneShotMutableOP"` for single-path search.
        route: what chooses the inputs of a node.
        genotype: cells that are decided, by name or as data; everything else stays as it is.

    Example:
        >>> darts_setting(mutable="OneShotMutableOP")["mutable_cfg"]["candidates"]["sep_conv_5x5"]["kernel_size"]
        5
    """
    norm_cfg = {"type": "BN", "affine": False}
    route_cfg: dict[str, Any] = {"type": route, "num_chosen": 2}
    if route == "DiffChoiceRoute":
        route_cfg["with_arch_param"] = True
    return {
        "type": "DartsBackbone",
        "in_channels": 3,
        "base_channels": base_channels,
        "num_layers": num_layers,
        "out_indices": (num_layers - 1,),
        "mutable_cfg": {"type": mutable, "candidates": darts_candidates(norm_cfg, pool_norm_cfg=norm_cfg)},
        "route_cfg": route_cfg,
        "norm_cfg": norm_cfg,
        "stem": stem,
        "genotype": genotype,
    }


def darts_network(
    genotype: DartsGenotype | str,
    *,
    num_classes: int = 10,
    base_channels: int = 36,
    num_layers: int = 20,
    stem: Stem = "cifar",
    pool_norm_cfg: Config | None = None,
    auxiliary: bool = False,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """The network that DARTS trains after its search, from cells: a classifier of images (N, 3, H, W).

    The defaults are those of CIFAR-10; ImageNet's has `num_classes=1000, base_channels=48, num_layers=14,
    stem="imagenet"`. Pooling has no norm, as in DARTS's own networks; MMRazor's have `pool_norm_cfg=dict(type="BN")`.

    Args:
        genotype: cells, or the name of published ones: `"DARTS_V1"`, `"DARTS_V2"`, `"DARTS_MMRAZOR"`.
        auxiliary: with a second classifier; in training mode the network gives `(logits, auxiliary logits)`.
        drop_path_rate: how often operations are left out in training; `set_drop_path_rate_` changes it, as DARTS does
            once an epoch, up to 0.2.

    Errors: see `DartsBackbone`.

    Example:
        >>> sum(p.numel() for p in darts_network("DARTS_V2").parameters())
        3349342
    """
    candidates = darts_candidates(pool_norm_cfg=pool_norm_cfg, use_drop_path=True)
    backbone = DartsBackbone(
        3,
        base_channels,
        {"candidates": candidates},
        num_layers=num_layers,
        out_indices=(num_layers - 1,),
        auxliary=auxiliary,
        aux_channels=AUX_CHANNELS[0],
        aux_out_channels=AUX_CHANNELS[1],
        stem=stem,
        genotype=genotype,
    )
    head = DartsClsHead(num_classes, backbone.out_channels, AUX_CHANNELS[1] if auxiliary else None)
    network = ImageClassifier(backbone, head)
    set_drop_path_rate_(network, drop_path_rate)
    return network
