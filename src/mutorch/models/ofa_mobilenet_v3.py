"""The search space of Once-for-All."""

from typing import Any

from mutorch.utils import make_divisible

RELU, HSWISH = {"type": "ReLU"}, {"type": "HSwish"}
WIDTHS = (16, 16, 24, 40, 80, 112, 160, 1280)


def ofa_mobilenet_v3_setting(widen_factor: float = 1.0, *, num_classes: int = 1000) -> dict[str, Any]:
    """The MobileNetV3 space of Once-for-All (arXiv 1908.09791): 2.18e19 classifiers of images (N, 3, H, W).

    Five stages of 2 to 4 blocks; every block has kernel size 3, 5 or 7, through learned matrices, and expansion 3, 4 or 6.
    Widths stay. Once-for-All's resolutions are sizes of the images that you feed.

    Args:
        widen_factor: 1.0 and 1.2 were published.

    Example:
        >>> from mutorch.mutators import Mutator
        >>> from mutorch.registry import MODELS
        >>> import torch
        >>> with torch.device("meta"):
        ...     Mutator(MODELS.build(ofa_mobilenet_v3_setting())).space
        SearchSpace(45 decisions, 21758655492572485851 architectures)
    """
    searched = 5
    backbone = {
        "type": "AttentiveMobileNetV3",
        "arch_setting": {
            "kernel_size": [[3, 3, 1], *[[3, 7, 2]] * searched],
            "num_blocks": [[1, 1, 1], *[[2, 4, 1]] * searched],
            "expand_ratio": [[1, 1, 1], *[{"choices": [3, 4, 6]}] * searched, [6, 6, 1]],
            "num_out_channels": [[width, width, 1] for width in WIDTHS],
        },
        "widen_factor": widen_factor,
        "out_indices": (searched + 1,),
        "conv_cfg": {"type": "OFAConv2d"},
        "act_cfg_list": [HSWISH, RELU, RELU, RELU, HSWISH, HSWISH, HSWISH, HSWISH],
        "stride_list": [1, 2, 2, 2, 1, 2],
        "with_se_list": [False, False, True, False, True, True],
        "fine_grained_mode": True,
        "with_attentive_shortcut": False,
    }
    last = make_divisible(WIDTHS[-1] * widen_factor, 8)
    return {
        "type": "SearchableImageClassifier",
        "backbone": backbone,
        "head": {"type": "LinearClsHead", "num_classes": num_classes, "in_channels": last},
    }
