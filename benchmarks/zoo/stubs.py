"""The compiled operators of torchvision that models call, for a torch its binaries do not load with (a CPU build).

Without them `import torchvision` fails ("operator torchvision::nms does not exist") and detection models cannot run.
`load_torchvision()` declares them, in plain PyTorch, only where the binaries did not load; it comes before any other import
of torchvision, and of timm and transformers, which import torchvision themselves.
"""

import importlib
import inspect
import sys
from types import ModuleType

import torch
from torch import Tensor

from mutorch.utils import require

_LIBRARIES: list[torch.library.Library] = []  # an operator lives as long as the library that defined it


def load_torchvision() -> ModuleType:
    """Torchvision, with its operators in plain PyTorch if its own do not load."""
    try:
        return require("torchvision", extra="zoo")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    _LIBRARIES.append(library)
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("nms", _nms, "CPU")
    torchvision = importlib.import_module("torchvision")
    align = sys.modules["torchvision.ops.roi_align"]
    # Its own version in PyTorch, which would be compiled on the first call; PyTorch differentiates it.
    library.impl("roi_align", inspect.unwrap(align._roi_align), "CompositeImplicitAutograd")
    sys.modules["torchvision.extension"]._has_ops = align._has_ops = lambda: True
    return torchvision


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The indices of the boxes that overlap no box of a higher score by more than the threshold, best first."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    sides = torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - torch.maximum(boxes[:, None, :2], boxes[:, :2])
    shared = sides.clamp(min=0).prod(dim=2)
    overlaps = shared / (areas[:, None] + areas - shared) > iou_threshold
    keep = torch.ones(len(boxes), dtype=torch.bool)
    for row in range(len(boxes)):
        if keep[row]:
            keep[row + 1 :] &= ~overlaps[row, row + 1 :]
    return order[keep]
