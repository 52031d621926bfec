"""The search space and the published networks of AttentiveNAS."""

from typing import Any

from mutorch.errors import ChoiceError, nearest

SPACE: dict[str, Any] = {
    "kernel_size": [[3, 5, 2]] * 7,
    "num_blocks": [[1, 2, 1], [3, 5, 1], [3, 6, 1], [3, 6, 1], [3, 8, 1], [3, 8, 1], [1, 2, 1]],
    "expand_ratio": [[1, 1, 1], [4, 6, 1], [4, 6, 1], [4, 6, 1], [4, 6, 1], [6, 6, 1], [6, 6, 1], [6, 6, 1]],
    "num_out_channels": [
        [16, 24, 8],
        [16, 24, 8],
        [24, 32, 8],
        [32, 40, 8],
        [64, 72, 8],
        [112, 128, 8],
        [192, 216, 8],
        [216, 224, 8],
        [1792, 1984, 192],
    ],
}
"""Table 2 of arXiv 2011.09011: first_conv, seven stages, last_conv."""
RESOLUTIONS = (192, 224, 256, 288)

_Encoding = tuple[int, list[int], list[int], list[int], list[int]]
_NETWORKS: dict[str, _Encoding] = {
    "A0": (192, [16, 16, 24, 32, 64, 112, 192, 216, 1792], [1, 3, 3, 3, 3, 3, 1], [3] * 7, [1, 4, 4, 4, 4, 6, 6]),
    "A1": (
        224,
        [16, 16, 24, 32, 64, 112, 192, 216, 1984],
        [1, 3, 3, 3, 3, 3, 1],
        [3, 3, 3, 5, 3, 5, 3],
        [1, 4, 4, 4, 4, 6, 6],
    ),
    "A2": (
        224,
        [16, 16, 24, 32, 64, 112, 200, 224, 1984],
        [1, 3, 3, 3, 3, 4, 1],
        [3, 3, 3, 3, 3, 5, 3],
        [1, 4, 5, 4, 4, 6, 6],
    ),
    "A3": (
        224,
        [16, 16, 24, 32, 64, 112, 208, 224, 1984],
        [2, 3, 3, 4, 3, 5, 1],
        [3, 3, 3, 5, 3, 3, 3],
        [1, 4, 4, 4, 4, 6, 6],
    ),
    "A4": (
        256,
        [16, 16, 24, 32, 64, 112, 192, 216, 1984],
        [1, 3, 3, 4, 3, 5, 1],
        [3, 3, 3, 5, 3, 5, 3],
        [1, 4, 4, 5, 4, 6, 6],
    ),
    "A5": (
        256,
        [16, 16, 24, 32, 72, 112, 192, 216, 1792],
        [1, 3, 3, 3, 4, 6, 1],
        [3, 3, 3, 5, 3, 3, 3],
        [1, 4, 5, 4, 4, 6, 6],
    ),
    "A6": (
        288,
        [16, 16, 24, 32, 64, 112, 216, 224, 1984],
        [1, 3, 3, 4, 4, 6, 1],
        [3, 3, 3, 3, 3, 5, 3],
        [1, 4, 6, 5, 4, 6, 6],
    ),
}
"""Resolution, widths, depths, kernel sizes, expansions: the models of AttentiveNAS's own configuration."""


def attentive_nas_setting(*, num_classes: int = 1000, resize: bool = True) -> dict[str, Any]:
    """The space of AttentiveNAS, a classifier of images (N, 3, H, W) that resizes them: widths, depths, kernels, expansions.

    Args:
        resize: search for the resolution, 192, 224, 256 or 288, too. Without it, images stay as they are.

    Example:
        >>> from mutorch.mutators import Mutator
        >>> from mutorch.registry import MODELS
        >>> import torch
        >>> with torch.device("meta"):
        ...     print(Mutator(MODELS.build(attentive_nas_setting())).space)
        SearchSpace(28 decisions, 440301256704 architectures)
    """
    setting: dict[str, Any] = {
        "type": "SearchableImageClassifier",
        "backbone": {"type": "AttentiveMobileNetV3", "arch_setting": SPACE},
        "head": {"type": "DynamicLinearClsHead", "num_classes": num_classes, "in_channels": 1984},
        "connect_head": {"connect_with_backbone": "backbone.last_mutable"},
    }
    if resize:
        shapes = [[size, size] for size in RESOLUTIONS]
        setting["input_resizer_cfg"] = {
            "input_resizer": {"type": "DynamicInputResizer"},
            "mutable_shape": {"type": "OneShotMutableValue", "value_list": shapes},
        }
    return setting


def attentive_nas_architecture(name: str) -> dict[str, Any]:
    """The choices of a published network, `"A0"` to `"A6"`, in the space of `attentive_nas_setting`.

    Errors:
        ChoiceError: another name.

    Example:
        >>> attentive_nas_architecture("A4")["backbone.layers.4.depth"]
        4
    """
    if name not in _NETWORKS:
        raise ChoiceError(f"AttentiveNAS has no network {name!r}; {nearest(name, _NETWORKS)}")
    resolution, widths, depths, kernels, ratios = _NETWORKS[name]
    chosen: dict[str, Any] = {
        "input_shape": [resolution, resolution],
        "backbone.first_channels": widths[0],
        "backbone.last_channels": widths[-1],
    }
    for number, (width, depth, kernel, ratio) in enumerate(zip(widths[1:-1], depths, kernels, ratios, strict=True), 1):
        stage = f"backbone.layers.{number}"
        chosen |= {f"{stage}.out_channels": width, f"{stage}.depth": depth, f"{stage}.kernel_size": kernel}
        low, high, _ = SPACE["expand_ratio"][number - 1]
        if low != high:
            chosen[f"{stage}.expand_ratio"] = ratio
    return chosen
