"""Published networks and search spaces as configs for `MODELS.build`."""

from typing import Any

from mutorch.errors import ChoiceError, nearest

_SHUFFLENET_V2 = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
"""Width to the channels of the three stages and of the last layer; arXiv 1807.11164, table 5 and its code."""


def spos_shufflenet_setting() -> dict[str, Any]:
    """The space of Single Path One-Shot, DetNAS and DSNAS: 20 blocks with 4 candidates each, 4^20 subnets.

    Features have 1024 channels. arXiv 1904.00420, table 1; seed 000.

    Example:
        >>> from mutorch.mutators import Mutator
        >>> from mutorch.registry import MODELS
        >>> Mutator(MODELS.build(spos_shufflenet_setting())).space.size == 4**20
        True
    """
    block = {
        "type": "OneShotMutableOP",
        "candidates": {
            "shuffle_3x3": {"type": "ShuffleBlock", "kernel_size": 3},
            "shuffle_5x5": {"type": "ShuffleBlock", "kernel_size": 5},
            "shuffle_7x7": {"type": "ShuffleBlock", "kernel_size": 7},
            "shuffle_xception": {"type": "ShuffleXception"},
        },
    }
    rows = [[64, 4, block], [160, 4, block], [320, 8, block], [640, 4, block]]
    return {"type": "SearchableShuffleNetV2", "arch_setting": rows}


def shufflenet_v2_setting(width: float = 1.0) -> dict[str, Any]:
    """ShuffleNetV2 as published; features have 1024 channels, 2048 at width 2. Nothing in it is searchable.

    Errors:
        ChoiceError: a width that was not published.

    Example:
        >>> shufflenet_v2_setting(1.5)["arch_setting"][0]
        [176, 4, {'type': 'ShuffleBlock', 'kernel_size': 3}]
    """
    if width not in _SHUFFLENET_V2:
        raise ChoiceError(f"ShuffleNetV2 was not published with width {width!r}; {nearest(width, _SHUFFLENET_V2)}")
    *channels, last = _SHUFFLENET_V2[width]
    block = {"type": "ShuffleBlock", "kernel_size": 3}
    return {
        "type": "SearchableShuffleNetV2",
        "arch_setting": [[channel, count, block] for channel, count in zip(channels, (4, 8, 4), strict=True)],
        "stem_multiplier": 1.5,
        "stem_max_pool": True,
        "last_channels": last,
        "out_indices": (3,),
    }


def spos_mobilenet_setting() -> dict[str, Any]:
    """The MobileNet space of Single Path One-Shot, with the widths of ProxylessNAS-GPU: 7^21 encodings.

    Twenty-one blocks have kernel size 3, 5 or 7 with expansion 3 or 6, or are left out; the first has one candidate.
    Features have 1728 channels. arXiv 1904.00420, 1812.00332.

    Example:
        >>> from mutorch.mutators import Mutator
        >>> from mutorch.registry import MODELS
        >>> len(Mutator(MODELS.build(spos_mobilenet_setting())).space)
        22
    """
    act = {"type": "ReLU6"}
    blocks = {
        f"mb_k{kernel_size}e{ratio}": {
            "type": "MBBlock",
            "kernel_size": kernel_size,
            "expand_ratio": ratio,
            "act_cfg": act,
        }
        for ratio in (1, 3, 6)
        for kernel_size in (3, 5, 7)
    }
    first = {"type": "OneShotMutableOP", "candidates": {"mb_k3e1": blocks["mb_k3e1"]}}
    candidates = {name: config for name, config in blocks.items() if config["expand_ratio"] != 1}
    block = {"type": "OneShotMutableOP", "candidates": {**candidates, "identity": {"type": "Identity"}}}
    return {
        "type": "SearchableMobileNetV2",
        "first_channels": 40,
        "last_channels": 1728,
        "arch_setting": [
            [24, 1, 1, first],
            [32, 4, 2, block],
            [56, 4, 2, block],
            [112, 4, 2, block],
            [128, 4, 1, block],
            [256, 4, 2, block],
            [432, 1, 1, block],
        ],
    }


def mobilenet_v2_setting(widen_factor: float = 1.0) -> dict[str, Any]:
    """MobileNetV2 as published (arXiv 1801.04381, table 2), at any width. Nothing in it is searchable.

    Features have 1280 channels, `1280 * widen_factor` where that is above 1.

    Example:
        >>> mobilenet_v2_setting(0.75)["arch_setting"][1][:3]
        [24, 2, 2]
    """
    rows = ((16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
    return {
        "type": "SearchableMobileNetV2",
        "widen_factor": widen_factor,
        "arch_setting": [
            [
                *row,
                {
                    "type": "MBBlock",
                    "kernel_size": 3,
                    "expand_ratio": 6 if number else 1,
                    "act_cfg": {"type": "ReLU6"},
                },
            ]
            for number, row in enumerate(rows)
        ],
    }
