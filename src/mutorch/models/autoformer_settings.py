"""The search spaces and published networks of AutoFormer."""

from typing import Any

from mutorch.errors import ChoiceError, nearest

_SPACES: dict[str, dict[str, list[float]]] = {
    "tiny": {"mlp_ratios": [3.5, 4, 0.5], "num_heads": [3, 4, 1], "depth": [12, 14, 1], "embed_dims": [192, 240, 24]},
    "small": {"mlp_ratios": [3, 4, 0.5], "num_heads": [5, 7, 1], "depth": [12, 14, 1], "embed_dims": [320, 448, 64]},
    "base": {"mlp_ratios": [3, 4, 0.5], "num_heads": [8, 10, 1], "depth": [14, 16, 1], "embed_dims": [528, 624, 48]},
}
"""Table 1 of arXiv 2107.00651."""

_NETWORKS: dict[str, tuple[int, list[int], list[float]]] = {
    "small": (
        384,
        [6, 6, 5, 7, 5, 5, 5, 6, 6, 7, 7, 6, 7],
        [3, 3.5, 3, 3.5, 4, 4, 4, 4, 4, 4, 4, 3.5, 4],
    ),
    "base": (
        576,
        [9, 9, 9, 9, 9, 10, 9, 9, 10, 9, 10, 9, 9, 10],
        [3.5, 3.5, 4, 3.5, 4, 3.5, 3.5, 3, 4, 4, 3, 4, 3, 3.5],
    ),
}
"""Features, heads and inner ratios of each block: the configurations that AutoFormer publishes with its weights."""


def autoformer_setting(size: str = "small", *, num_classes: int = 1000) -> dict[str, Any]:
    """A space of AutoFormer, "tiny", "small" or "base": classifiers of images (N, 3, 224, 224).

    Errors:
        ChoiceError: another size.

    Example:
        >>> import torch
        >>> from mutorch.mutators import Mutator
        >>> from mutorch.registry import MODELS
        >>> with torch.device("meta"):
        ...     Mutator(MODELS.build(autoformer_setting("tiny"))).space
        SearchSpace(30 decisions, 1056964608 architectures)
    """
    if size not in _SPACES:
        raise ChoiceError(f"AutoFormer has no space {size!r}; {nearest(size, _SPACES)}")
    space = _SPACES[size]
    return {
        "type": "SearchableImageClassifier",
        "backbone": {"type": "AutoformerBackbone", "arch_setting": space},
        "head": {
            "type": "DynamicLinearClsHead",
            "num_classes": num_classes,
            "in_channels": int(space["embed_dims"][1]),
        },
        "connect_head": {"connect_with_backbone": "backbone.last_mutable"},
    }


def autoformer_architecture(size: str) -> dict[str, Any]:
    """The choices of AutoFormer-small or -base, in the space of that size; of blocks that do not run, the largest.

    Errors:
        ChoiceError: another size; the published network of "tiny" is none of its space.

    Example:
        >>> autoformer_architecture("base")["backbone.depth"]
        14
    """
    if size not in _NETWORKS:
        raise ChoiceError(f"no network of AutoFormer is known as {size!r}; {nearest(size, _NETWORKS)}")
    width, heads, ratios = _NETWORKS[size]
    space = _SPACES[size]
    idle = int(space["depth"][1]) - len(heads)
    heads, ratios = [*heads, *[int(space["num_heads"][1])] * idle], [*ratios, *[space["mlp_ratios"][1]] * idle]
    chosen: dict[str, Any] = {"backbone.embed_dims": width, "backbone.depth": len(heads) - idle}
    for number, (count, ratio) in enumerate(zip(heads, ratios, strict=True)):
        chosen |= {f"backbone.blocks.{number}.num_heads": count, f"backbone.blocks.{number}.mlp_ratio": ratio}
    return chosen
