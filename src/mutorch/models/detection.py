"""What a class map and a box map are trained to be, and the boxes that they say."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mutorch.errors import ConfigError
from mutorch.utils.boxes import Boxes, area, kept, overlap, padded

from .dense_detector import cell_centres

RADIUS = 1.0
"""Cells whose middle is at most so many cells from that of a box, in x and in y, are trained to see it."""


def detection_loss(
    outputs: tuple[Tensor, Tensor],
    targets: Sequence[Boxes],
    image_size: tuple[int, int],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    box_weight: float = 1.0,
) -> Tensor:
    """The loss of the maps of a `DenseDetector`: focal loss of the classes and GIoU loss of the boxes, a sum for each cell with a box.

    A cell is trained to see a box where `assign` says so, and nothing elsewhere.

    Args:
        outputs: class logits (N, K, h, w) and boxes (N, 4, h, w), (x1, y1, x2, y2) in pixels.
        targets: for each image `boxes` (n, 4) and `labels` (n) from 0; images without boxes are fine.
        image_size: height and width.
        alpha, gamma: of the focal loss (arXiv 1708.02002).
        box_weight: of the GIoU loss.

    Returns:
        A scalar.

    Errors:
        ConfigError: as many targets as images are expected; a label that is none of the K classes.
    """
    logits, boxes = outputs
    if len(targets) != len(logits):
        raise ConfigError(f"there are {len(logits)} images and {len(targets)} targets; give one each")
    classes, goals = assign(targets, logits, image_size)
    is_seen = classes >= 0
    count = is_seen.sum().clamp(min=1)
    wanted = F.one_hot(classes.clamp(min=0), logits.shape[1]).movedim(-1, 1) * is_seen[:, None]
    loss = _focal(logits, wanted.to(logits.dtype), alpha, gamma)
    found, goal = boxes.movedim(1, -1)[is_seen], goals[is_seen]
    return (loss + box_weight * (1 - overlap(found, goal, generalized=True)).sum()) / count


def _focal(logits: Tensor, wanted: Tensor, alpha: float, gamma: float) -> Tensor:
    probability = logits.sigmoid()
    wrong = wanted * (1 - probability) + (1 - wanted) * probability
    weight = wanted * alpha + (1 - wanted) * (1 - alpha)
    return (weight * wrong**gamma * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum()


def assign(targets: Sequence[Boxes], logits: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The class (N, h, w) and the box (N, h, w, 4) that each cell is trained to see; class -1 is nothing.

    A cell sees the box whose middle lies in it, and those that its own middle lies inside of, at most `RADIUS` cells from theirs;
    of several the smallest.

    Errors:
        ConfigError: a label that is none of the classes of `logits` (N, K, h, w).
    """
    boxes, labels = (part.to(logits.device) for part in padded(targets))
    _, num_classes, height, width = logits.shape
    if labels.numel() and (int(labels.max()) >= num_classes or int(labels.min()) < -1):
        wrong = int(labels.max()) if int(labels.max()) >= num_classes else int(labels.min())
        raise ConfigError(f"a target has the label {wrong}; the model has the classes 0 to {num_classes - 1}")
    if not boxes.shape[1]:
        return labels.new_full((len(labels), height, width), -1), boxes.new_zeros(len(labels), height, width, 4)
    centres, cell = (
        part.flatten(2).transpose(1, 2) for part in cell_centres(logits, image_size)
    )  # (1, hw, 2), (1, 1, 2)
    start, end = boxes[:, :, None, :2], boxes[:, :, None, 2:]
    away = ((centres[:, None] - (start + end) / 2) / cell).abs().amax(-1)  # (N, boxes, hw), in cells
    is_inside = ((centres[:, None] > start) & (centres[:, None] < end)).all(-1)
    sees = ((away <= RADIUS) & is_inside) | (away <= 0.5)
    sees &= (labels >= 0)[..., None]
    size = torch.where(sees, area(boxes)[..., None], torch.inf)
    smallest, which = size.min(dim=1)  # (N, hw)
    classes = torch.where(smallest.isfinite(), labels.gather(1, which), -1)
    goals = boxes.gather(1, which[..., None].expand(-1, -1, 4))
    return classes.view(-1, height, width), goals.view(-1, height, width, 4)


def detections(
    outputs: tuple[Tensor, Tensor], *, at_least: float = 0.05, overlap_at_most: float = 0.5, max_boxes: int = 30
) -> list[dict[str, Tensor]]:
    """The boxes that maps say, for each image: `boxes` (n, 4) in pixels, `scores` (n), best first, and `labels` (n).

    The `max_boxes` most probable pairs of cell and class, without those that a better box of the same class overlaps
    (non-maximum suppression).

    Args:
        outputs: class logits (N, K, h, w) and boxes (N, 4, h, w).
        at_least: the least score.
        overlap_at_most: the intersection over union above which the better of two boxes removes the other.
        max_boxes: of an image.

    Example:
        >>> logits, boxes = torch.full((1, 2, 1, 2), -9.0), torch.tensor([0.0, 0, 4, 4]).view(1, 4, 1, 1).expand(1, 4, 1, 2)
        >>> logits[0, 1] = torch.tensor([0.0, 3.0])
        >>> detections((logits, boxes))
        [{'boxes': tensor([[0., 0., 4., 4.]]), 'scores': tensor([0.9526]), 'labels': tensor([1])}]
    """
    logits, boxes = outputs
    cells = logits.shape[2] * logits.shape[3]
    scores, places = logits.sigmoid().flatten(1).topk(min(max_boxes, logits[0].numel()), dim=1)
    labels = (places // cells).masked_fill(scores < at_least, -1)
    found = boxes.flatten(2).transpose(1, 2).gather(1, (places % cells)[..., None].expand(-1, -1, 4))
    stays = kept(found, labels, overlap_at_most=overlap_at_most)
    return [
        {"boxes": b[keep], "scores": s[keep], "labels": kind[keep]}
        for b, s, kind, keep in zip(found, scores, labels, stays, strict=True)
    ]
