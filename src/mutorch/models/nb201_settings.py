"""The search space of NAS-Bench-201 as a config, and the names of its architectures."""

import re
from collections.abc import Mapping
from typing import Any

from mutorch.errors import SpaceError, nearest

from .conv_norm_act import BATCH_NORM, Config
from .nb201_net import EDGES, NUM_NODES, edge_name

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def nb201_candidates(norm_cfg: Config = BATCH_NORM) -> dict[str, dict[str, Any]]:
    """The five operations of NAS-Bench-201 (arXiv 2001.00326, section 2.1), by name, as configs of candidates.

    Args:
        norm_cfg: of convolutions; see `NB201Conv`.

    Example:
        >>> list(nb201_candidates())
        ['none', 'skip_connect', 'nor_conv_1x1', 'nor_conv_3x3', 'avg_pool_3x3']
    """
    norm = dict(norm_cfg)
    return {
        "none": {"type": "DartsZero"},
        "skip_connect": {"type": "DartsSkipConnect", "norm_cfg": norm},
        "nor_conv_1x1": {"type": "NB201Conv", "kernel_size": 1, "norm_cfg": norm},
        "nor_conv_3x3": {"type": "NB201Conv", "kernel_size": 3, "norm_cfg": norm},
        "avg_pool_3x3": {"type": "NB201AvgPool", "norm_cfg": norm},
    }


def nb201_setting(
    *,
    mutable: str = "OneShotMutableOP",
    num_classes: int = 10,
    base_channels: int = 16,
    num_cells: int = 5,
    norm_cfg: Config = BATCH_NORM,
) -> dict[str, Any]:
    """The space of NAS-Bench-201, 5^6 = 15 625 architectures, with the skeleton of its CIFAR-10 networks.

    Args:
        mutable: what chooses an operation: `"OneShotMutableOP"`, or `"DiffMutableOP"` for gradients.
        norm_cfg: of the candidates; see `NB201Conv`.

    Example:
        >>> nb201_setting(mutable="DiffMutableOP")["mutable_cfg"]["type"]
        'DiffMutableOP'
    """
    return {
        "type": "NB201Net",
        "mutable_cfg": {"type": mutable, "candidates": nb201_candidates(norm_cfg)},
        "num_classes": num_classes,
        "base_channels": base_channels,
        "num_cells": num_cells,
    }


def nb201_architecture(name: str) -> dict[str, str]:
    """The choices of an architecture that the benchmark calls `name`.

    Errors:
        SpaceError: a name of another form, or with another operation.

    Example:
        >>> nb201_architecture("|none~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|none~1|avg_pool_3x3~2|")["n3_p2"]
        'avg_pool_3x3'
    """
    found = [re.findall(r"([^|~]+)~(\d+)", node) for node in name.split("+")]
    edges = [(number, int(before)) for number, node in enumerate(found, 1) for _, before in node]
    if edges != list(EDGES) or name != _written(found):
        raise SpaceError(f"an architecture of NAS-Bench-201 is written {_PATTERN!r}, got {name!r}")
    for operation, _ in (edge for node in found for edge in node):
        if operation not in OPERATIONS:
            raise SpaceError(f"NAS-Bench-201 has no operation {operation!r}; {nearest(operation, OPERATIONS)}")
    return {edge_name(edge): op for edge, (op, _) in zip(EDGES, (e for node in found for e in node), strict=True)}


def nb201_name(architecture: Mapping[str, Any]) -> str:
    """What the benchmark calls an architecture of `NB201Net`.

    Errors:
        SpaceError: an edge is missing.

    Example:
        >>> nb201_name(dict.fromkeys(["n1_p0", "n2_p0", "n2_p1", "n3_p0", "n3_p1", "n3_p2"], "none"))
        '|none~0|+|none~0|none~1|+|none~0|none~1|none~2|'
    """
    missing = [name for name in map(edge_name, EDGES) if name not in architecture]
    if missing:
        raise SpaceError(f"the architecture has no decision {missing[0]!r}; {nearest(missing[0], architecture)}")
    return _written(
        [[(architecture[edge_name((node, i))], str(i)) for i in range(node)] for node in range(1, NUM_NODES)]
    )


def _written(nodes: list[list[tuple[str, str]]]) -> str:
    return "+".join(f"|{'|'.join(f'{operation}~{before}' for operation, before in node)}|" for node in nodes)


_PATTERN = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
