"""All models of torchvision for classification, segmentation, video and detection.

Left out are the quantized models, whose layers are not float, and optical flow (RAFT), which is none of the four tasks.
GoogLeNet and Inception v3 are what the constructors give, with the auxiliary heads that run in training only.
"""

import sys
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import nn

from .entry import Entry, image
from .stubs import load_torchvision

LARGE = 100_000_000

# 64x64, but where a model needs more.
SIZES = {"inception_v3": 75, "maxvit_t": 224, "vit_h_14": 56}
CLIPS = {"s3d": (16, 224)}

# Little to do after the backbone, and no score too low to be kept: untrained, all are about 1/91.
REGIONS = {
    "min_size": 64,
    "max_size": 64,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 10,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 5,
}
ONE_STAGE = {"topk_candidates": 20, "score_thresh": 0.0, "detections_per_img": 5}


def classification() -> dict[str, Entry]:
    """Images of 64x64, or the smallest that the model takes."""
    models = load_torchvision().models
    found = {}
    for name in models.list_models(module=models):
        size = SIZES.get(name, 64)
        options: dict[str, Any] = {}
        if name.startswith("vit_"):
            options["image_size"] = size
        if name in ("googlenet", "inception_v3"):
            options["init_weights"] = True
        found[name] = _entry(name, image(size), options)
    return found


def segmentation() -> dict[str, Entry]:
    """Images of 64x64."""
    models = load_torchvision().models
    names = models.list_models(module=models.segmentation)
    return {name: _entry(name, image(64), {"weights_backbone": None}) for name in names}


def video() -> dict[str, Entry]:
    """Clips of 8 frames of 64x64, or the smallest that the model takes."""
    models = load_torchvision().models
    found = {}
    for name in models.list_models(module=models.video):
        frames, size = CLIPS.get(name, (8, 64))
        found[name] = _entry(name, image(size, frames=frames), {})
        if name.startswith("mvit_"):
            found[name] = replace(found[name], build=partial(_small_mvit, name, frames, size))
    return found


def detection() -> dict[str, Entry]:
    """One image of 64x64 in a list; SSD resizes it to 300x300 or 320x320, the only size that it takes."""
    models = load_torchvision().models
    found = {}
    for name in models.list_models(module=models.detection):
        options: dict[str, Any] = {"weights_backbone": None}
        if "rcnn" in name:
            options |= REGIONS
        else:
            options |= ONE_STAGE if name.startswith("ssd") else {**ONE_STAGE, "min_size": 64, "max_size": 64}
        found[name] = _entry(name, _detect, options)
    return found


def entries() -> dict[str, Entry]:
    """All of them."""
    return {**classification(), **segmentation(), **video(), **detection()}


def _entry(name: str, example_inputs: Any, options: dict[str, Any]) -> Entry:
    models = load_torchvision().models
    num_params = models.get_model_weights(name).DEFAULT.meta["num_params"]
    build = partial(models.get_model, name, weights=None, **options)
    return Entry(f"torchvision/{name}", build, example_inputs, large=num_params > LARGE)


def _small_mvit(name: str, frames: int, size: int) -> nn.Module:
    """An MViT for small clips: its constructors write the size of the clip in, and take no other."""
    module = sys.modules["torchvision.models.video.mvit"]
    original = module._mvit

    def small(**options: Any) -> nn.Module:
        return original(**{**options, "spatial_size": (size, size), "temporal_size": frames})

    with mock.patch.object(module, "_mvit", small):
        return load_torchvision().models.get_model(name, weights=None)


def _detect(model: nn.Module) -> Any:
    return model([torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))])
