"""Real images small enough to ship: scikit-learn's handwritten digits, made harder."""

from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from mutorch.errors import ConfigError, nearest

SPLITS = ("train", "val", "test")


class ClutteredDigits:
    """2800 training, 1588 validation and 2800 test images of digits, float32, 1x10x10, with labels 0 to 9.

    Scikit-learn's digits (UCI, 8x8) on a 10x10 canvas, shifted, rotated by up to 20 degrees, with a 3x3 patch of another
    digit as clutter, and noise; split by source image, so that no image is in two splits.

    Example:
        >>> data = ClutteredDigits()
        >>> [len(data[split]) for split in ("train", "val", "test")], data.example_inputs.shape
        ([2800, 1588, 2800], torch.Size([1, 1, 10, 10]))
    """

    num_classes = 10

    def __init__(self) -> None:
        with (files("mutorch.testing") / "cluttered_digits.npz").open("rb") as file:
            arrays = dict(np.load(file))
        self._splits = {
            split: _Batchwise(torch.from_numpy(arrays[f"x_{split}"]).float(), torch.from_numpy(arrays[f"y_{split}"]))
            for split in SPLITS
        }

    @property
    def example_inputs(self) -> Tensor:
        """One image."""
        return self["val"].tensors[0][:1]

    def __getitem__(self, split: str) -> TensorDataset:
        if split not in self._splits:
            raise ConfigError(f"no split {split!r}; {nearest(split, SPLITS)}")
        return self._splits[split]

    def loader(self, split: str, batch_size: int = 64, *, shuffle: bool | None = None) -> DataLoader[Any]:
        """Batches of a split; the training split is shuffled and drops its last, smaller batch."""
        training = split == "train"
        return DataLoader(
            self[split],
            batch_size=batch_size,
            shuffle=training if shuffle is None else shuffle,
            drop_last=training,
            collate_fn=_as_it_is,
        )


class _Batchwise(TensorDataset):
    """Indexes a whole batch at once: a tenth of the time of collating 64 small images."""

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        return tuple(tensor[indices] for tensor in self.tensors)


def _as_it_is(batch: Any) -> Any:
    return batch
