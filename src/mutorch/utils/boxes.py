"""Boxes in images, (x1, y1, x2, y2) in pixels: overlap, lists of them as one tensor, and which of several to keep."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mutorch.errors import ConfigError, nearest

Boxes = Mapping[str, Tensor]
"""What is in one image: `boxes` (n, 4), `labels` (n), and of predictions `scores` (n)."""


def overlap(first: Tensor, second: Tensor, *, generalized: bool = False) -> Tensor:
    """Intersection over union of boxes (..., 4) that broadcast; 0 for boxes without an area.

    Args:
        generalized: subtract the share of the enclosing box that neither covers (GIoU, arXiv 1902.09630), which has a
            gradient where boxes do not meet: from -1 to 1.

    Example:
        >>> one, half = torch.tensor([0.0, 0, 2, 2]), torch.tensor([0.0, 0, 2, 1])
        >>> overlap(one, half).item(), overlap(one, half + 4, generalized=True).item()
        (0.5, -0.800000011920929)
    """
    inside = area(
        torch.cat([torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])], -1)
    )
    union = area(first) + area(second) - inside
    share = inside / union.clamp(min=1e-9)
    if not generalized:
        return share
    around = area(
        torch.cat([torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])], -1)
    )
    return share - (around - union) / around.clamp(min=1e-9)


def area(boxes: Tensor) -> Tensor:
    """The areas (...) of boxes (..., 4); 0 where a box ends before it begins."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def padded(images: Sequence[Boxes], names: Sequence[str] = ("boxes", "labels")) -> list[Tensor]:
    """One tensor for each name, (images, most boxes in one image, ...); labels are -1 and the rest 0 where there is no box.

    Errors:
        ConfigError: no images; a name that an image does not have; boxes that are not (n, 4); other counts beside them.

    Example:
        >>> one = {"boxes": torch.ones(2, 4), "labels": torch.tensor([3, 5])}
        >>> none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        >>> boxes, labels = padded([one, none])
        >>> tuple(boxes.shape), labels.tolist()
        ((2, 2, 4), [[3, 5], [-1, -1]])
    """
    if not images:
        raise ConfigError("there are no images: boxes are a list with one dict for each image")
    for number, image in enumerate(images):
        _check(number, image, names)
    columns = []
    for name in names:
        rows = [image[name] for image in images]
        columns.append(pad_sequence(rows, batch_first=True, padding_value=-1 if name == "labels" else 0))
    return columns


def _check(number: int, image: Boxes, names: Sequence[str]) -> None:
    for name in names:
        if name not in image:
            raise ConfigError(f"the boxes of image {number} have no {name!r}; {nearest(name, image)}")
    shape = tuple(image["boxes"].shape)
    if len(shape) != 2 or shape[1] != 4:
        raise ConfigError(f"the boxes of image {number} must be (n, 4), got {shape}")
    for name in names:
        if name != "boxes" and tuple(image[name].shape) != shape[:1]:
            raise ConfigError(
                f"image {number} has {shape[0]} boxes, and {name!r} of shape {tuple(image[name].shape)}, not ({shape[0]},)"
            )


def kept(boxes: Tensor, labels: Tensor, *, overlap_at_most: float = 0.5) -> Tensor:
    """Which boxes stay (N, K) when each that stays removes the later ones of its label that overlap it by more.

    Non-maximum suppression, of each class alone, for a batch.

    Args:
        boxes: (N, K, 4), those of an image sorted by their score, best first.
        labels: (N, K); boxes of label -1 are no boxes.

    Example:
        >>> boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 5], [0, 0, 4, 4], [8, 8, 9, 9]]])
        >>> kept(boxes, torch.tensor([[1, 1, 2, 1]])).tolist()
        [[True, False, True, True]]
    """
    rivals = overlap(boxes[:, :, None], boxes[:, None]) > overlap_at_most
    rivals &= labels[:, :, None] == labels[:, None]
    rivals = rivals.triu(diagonal=1)
    stays = labels >= 0
    for number in range(boxes.shape[1]):
        stays = stays & ~(rivals[:, number] & stays[:, number, None])
    return stays
