"""A small detection task made of the digits that ship: find and name one to three of them in a noisy image."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mutorch.errors import ConfigError, nearest
from mutorch.space import random_at
from mutorch.utils.boxes import overlap

from .digits import SPLITS, ClutteredDigits

COUNTS = {"train": 2000, "val": 400, "test": 600}
INK = 0.35
"""What is darker than this in a digit's image belongs to it, and not to its noise."""
SIDES = (10, 20)
"""How long the longer side of a digit may be, in pixels."""
MAX_OVERLAP = 0.05
ATTEMPTS = 20

Target = dict[str, Tensor]
"""`boxes` (n, 4), (x1, y1, x2, y2) in pixels, and `labels` (n) of one image."""


class DetectionDigits:
    """Images (1, size, size) with one to `max_digits` digits, their boxes and labels, the same for the same arguments.

    The images of `ClutteredDigits`, cut to their ink, scaled so that the longer side has 10 to 20 pixels, and put at
    random places where they overlap by at most 0.05 (intersection over union); then noise over all. Where no room is found for a
    digit in 20 attempts the image has fewer. The digits of a split are those of that split of `ClutteredDigits`, so no source
    image is in two.

    Args:
        size: of an image in pixels, at least 20, which the largest digit has.
        counts: how many images the splits have; 2000, 400 and 600 of `"train"`, `"val"`, `"test"` unless given.
        max_digits: in an image.
        noise: its deviation; digits are at most 1.
        seed: decides everything.

    Errors:
        ConfigError: a size, a count or a `max_digits` that is too small; an unknown split.

    Example:
        >>> data = DetectionDigits(counts={"train": 4, "val": 2, "test": 2})
        >>> image, target = data["train"][0]
        >>> tuple(image.shape), sorted(target), target["boxes"].shape[1]
        ((1, 40, 40), ['boxes', 'labels'], 4)
        >>> images, targets = next(iter(data.loader("train", 4)))
        >>> tuple(images.shape), len(targets)
        ((4, 1, 40, 40), 4)
    """

    num_classes = 10

    def __init__(
        self,
        size: int = 40,
        counts: Mapping[str, int] | None = None,
        max_digits: int = 3,
        noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        counts = {**COUNTS, **(counts or {})}
        for split, count in counts.items():
            if split not in SPLITS:
                raise ConfigError(f"no split {split!r}; {nearest(split, SPLITS)}")
            if count < 1:
                raise ConfigError(f"a split needs an image at least; counts[{split!r}] is {count}")
        if size < SIDES[1]:
            raise ConfigError(f"size must be at least {SIDES[1]} pixels, the largest digit's, got {size}")
        if max_digits < 1:
            raise ConfigError(f"max_digits must be at least 1, got {max_digits}")
        digits = ClutteredDigits()
        self._splits = {
            split: _drawn(digits[split], count, size, max_digits, noise, random_at(seed, "detection", split))
            for split, count in counts.items()
        }

    @property
    def example_inputs(self) -> Tensor:
        """One image, (1, 1, size, size)."""
        return self["val"].images[:1]

    def __getitem__(self, split: str) -> "DetectionSet":
        if split not in self._splits:
            raise ConfigError(f"no split {split!r}; {nearest(split, SPLITS)}")
        return self._splits[split]

    def loader(self, split: str, batch_size: int = 64, *, shuffle: bool | None = None) -> DataLoader[Any]:
        """Batches of a split, made by `collate_detection`; that for training is shuffled and drops its last, smaller batch."""
        training = split == "train"
        is_enough = len(self[split]) >= batch_size
        return DataLoader(
            self[split],
            batch_size=batch_size,
            shuffle=training if shuffle is None else shuffle,
            drop_last=training and is_enough,
            collate_fn=collate_detection,
        )


class DetectionSet(Dataset[tuple[Tensor, Target]]):
    """Images (N, C, H, W) and what is in each; items are pairs."""

    def __init__(self, images: Tensor, targets: Sequence[Target]) -> None:
        self.images, self.targets = images, list(targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        return self.images[index], self.targets[index]


def collate_detection(items: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """A batch of pairs: images (N, C, H, W), and a list of targets, since images have different numbers of boxes."""
    images, targets = zip(*items, strict=True)
    return torch.stack(images), list(targets)


def _drawn(
    source: TensorDataset, count: int, size: int, max_digits: int, noise: float, rng: random.Random
) -> DetectionSet:
    digits, labels = source.tensors
    generator = torch.Generator().manual_seed(rng.getrandbits(63))
    images = noise * torch.randn(count, 1, size, size, generator=generator)
    targets = []
    for image in images:
        boxes: list[Tensor] = []
        found: list[int] = []
        for _ in range(rng.randint(1, max_digits)):
            which = rng.randrange(len(digits))
            patch = _scaled(digits[which, 0], rng.uniform(*SIDES))
            box = _free_place(patch, size, boxes, rng)
            if box is not None:
                x1, y1, x2, y2 = box.int().tolist()
                image[0, y1:y2, x1:x2] += patch
                boxes.append(box)
                found.append(int(labels[which]))
        targets.append({"boxes": torch.stack(boxes), "labels": torch.tensor(found)})
    return DetectionSet(images, targets)


def _scaled(digit: Tensor, longest: float) -> Tensor:
    """A digit cut to its ink, the longer side of which is then `longest`."""
    ink = digit > INK
    rows, columns = ink.any(1).nonzero().flatten(), ink.any(0).nonzero().flatten()
    cut = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].clamp(0, 1)
    factor = longest / max(cut.shape)
    shape = [max(3, round(side * factor)) for side in cut.shape]
    return F.interpolate(cut[None, None], size=shape, mode="bilinear")[0, 0]


def _free_place(patch: Tensor, size: int, boxes: list[Tensor], rng: random.Random) -> Tensor | None:
    height, width = patch.shape
    for _ in range(ATTEMPTS):
        x, y = rng.randint(0, size - width), rng.randint(0, size - height)
        box = torch.tensor([x, y, x + width, y + height], dtype=torch.float32)
        if not boxes or float(overlap(torch.stack(boxes), box).max()) <= MAX_OVERLAP:
            return box
    return None
