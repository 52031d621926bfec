"""How well detections fit: mean average precision."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mutorch.errors import ConfigError

from .boxes import Boxes, overlap, padded

COCO_OVERLAPS = tuple(round(0.5 + 0.05 * number, 2) for number in range(10))
"""0.50, 0.55, ..., 0.95: what COCO averages over."""


def mean_average_precision(
    predictions: Sequence[Boxes], targets: Sequence[Boxes], *, iou: float | Sequence[float] = COCO_OVERLAPS
) -> float:
    """The mean over classes and overlaps of the average precision, between 0 and 1, as COCO defines it.

    Best score first, a prediction is right if it overlaps a box of its class and image enough that no better one took: the one
    that it overlaps most. The precision at a recall is the best at that recall or a higher one; the average is over the recalls 0,
    0.01, ..., 1. Classes without a box in `targets` do not count.

    Args:
        predictions: for each image `boxes` (n, 4) as (x1, y1, x2, y2), `scores` (n) and `labels` (n) from 0.
        targets: for each image `boxes` and `labels`.
        iou: the overlap (intersection over union) that is enough, or several, whose results are averaged: `0.5` is
            the mAP of Pascal VOC's overlap; the default is COCO's.

    Errors:
        ConfigError: lists of different lengths, entries of other shapes, an overlap that is not above 0 and at most 1,
            or targets without any box, of which nothing can be said.

    Example:
        >>> target = {"boxes": torch.tensor([[0.0, 0, 8, 8]]), "labels": torch.tensor([3])}
        >>> wider = {"boxes": torch.tensor([[0.0, 0, 10, 8]]), "labels": torch.tensor([3]), "scores": torch.tensor([0.7])}
        >>> mean_average_precision([wider], [target], iou=0.5), mean_average_precision([wider], [target])
        (1.0, 0.7)
    """
    enough = _overlaps(iou)
    if len(predictions) != len(targets):
        raise ConfigError(
            f"there are {len(predictions)} predictions and {len(targets)} targets; give one each for each image"
        )
    boxes, labels = (part.cpu() for part in padded(targets))
    found, found_labels, scores = (part.cpu() for part in padded(predictions, ("boxes", "labels", "scores")))
    classes = torch.unique(labels[labels >= 0])
    if not len(classes):
        raise ConfigError("the targets have no box; a mean average precision says nothing without one")
    order = scores.masked_fill(found_labels < 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
    found, found_labels, scores = (
        found.gather(1, order[..., None].expand_as(found)),
        found_labels.gather(1, order),
        scores.gather(1, order),
    )
    right = _right(found, found_labels, boxes, labels, enough)
    precisions = [
        _average_precision(scores[found_labels == c], right[found_labels == c], int((labels == c).sum()))
        for c in classes
    ]
    return float(torch.stack(precisions).mean())


def _overlaps(iou: float | Sequence[float]) -> Tensor:
    overlaps = [iou] if isinstance(iou, int | float) else list(iou)
    if not overlaps or not all(0 < value <= 1 for value in overlaps):
        raise ConfigError(f"iou must be an overlap above 0 and at most 1, or several, got {iou!r}")
    return torch.tensor(overlaps, dtype=torch.float64)


def _right(found: Tensor, found_labels: Tensor, boxes: Tensor, labels: Tensor, enough: Tensor) -> Tensor:
    """Which predictions are right at each overlap, (N, D, T), of predictions sorted by score (N, D) and boxes (N, G)."""
    right = torch.zeros(*found_labels.shape, len(enough), dtype=torch.bool)
    if not found.shape[1] or not boxes.shape[1]:
        return right
    overlaps = overlap(found.double()[:, :, None], boxes.double()[:, None])
    overlaps = overlaps.masked_fill((found_labels[:, :, None] != labels[:, None]) | (labels[:, None] < 0), -1)
    taken = torch.zeros(len(found), len(enough), boxes.shape[1], dtype=torch.bool)
    for number in range(found.shape[1]):
        best, which = overlaps[:, number, None].masked_fill(taken, -1).max(dim=2)
        # Coordinates in float32 round: an overlap of exactly a half must count as one.
        right[:, number] = best >= enough - 1e-6
        taken.scatter_(2, which[..., None], right[:, number, :, None] | taken.gather(2, which[..., None]))
    return right


def _average_precision(scores: Tensor, right: Tensor, count: int) -> Tensor:
    """The average precision of one class at each overlap, of all its predictions (P) and what is right (P, T)."""
    if not len(scores):
        return torch.zeros(right.shape[1], dtype=torch.float64)
    hits = right[scores.argsort(descending=True, stable=True)].double().cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)[:, None]
    best = precision.flip(0).cummax(0).values.flip(0).T.contiguous()
    recall = (hits / count).T.contiguous()
    # A hundredth off the rounding of the recalls decides nothing.
    at = torch.searchsorted(
        recall, (torch.arange(101, dtype=torch.float64) / 100 - 1e-9).expand(len(recall), -1).contiguous()
    )
    reached = at < best.shape[1]
    return torch.where(reached, best.gather(1, at.clamp(max=best.shape[1] - 1)), 0.0).mean(1)
