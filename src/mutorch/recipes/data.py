"""What a recipe needs of data for classification, and how a search reads it: a batch for each step, the same in every run."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from mutorch.errors import ConfigError, nearest
from mutorch.space import random_at


class Data(Protocol):
    """What a recipe needs of data for classification: batches of (inputs, labels) of three splits, and an example."""

    @property
    def example_inputs(self) -> Tensor:
        """A batch of one."""

    def loader(self, split: str, batch_size: int) -> DataLoader[Any]:
        """Batches of `"train"` (shuffled), `"val"` or `"test"`."""


class Splits:
    """`Data` made of data sets that you have, one for each split.

    Args:
        splits: `"train"` and `"val"`, `"test"` too for recipes with a table; items are (input, label).

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = Splits({"train": TensorDataset(torch.zeros(6, 2), torch.zeros(6))})
        >>> [len(labels) for _, labels in data.loader("train", 4)], data.example_inputs.shape
        ([4, 2], torch.Size([1, 2]))
    """

    def __init__(self, splits: Mapping[str, Dataset[Any]]) -> None:
        self._splits = dict(splits)

    @property
    def example_inputs(self) -> Tensor:
        """The first input."""
        inputs: Tensor = next(iter(self._splits.values()))[0][0]
        return inputs[None]

    def loader(self, split: str, batch_size: int) -> DataLoader[Any]:
        """Batches of a split; those for training are shuffled.

        Errors:
            ConfigError: no such split.
        """
        if split not in self._splits:
            raise ConfigError(f"no split {split!r}; {nearest(split, self._splits)}")
        return DataLoader(self._splits[split], batch_size, shuffle=split == "train")


class Batches:
    """The batch of each step, as a function of seed and step, so that a search that was interrupted goes on with the same ones.

    Every epoch is shuffled anew, validation data too, since an architecture is learned from them. A loader with a sampler
    of its own, or over a stream, is read as it is.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = Splits({"train": TensorDataset(torch.arange(6), torch.zeros(6))})
        >>> first, again = Batches(data, "train", 2, seed=0), Batches(data, "train", 2, seed=0)
        >>> walked = [first.at(step)[0] for step in range(5)]
        >>> torch.equal(walked[4], again.at(4)[0])
        True
    """

    def __init__(self, data: Data, split: str, batch_size: int, seed: int) -> None:
        self._seed, self._split = seed, split
        self._loader = _shuffled(data.loader(split, batch_size), batch_size)
        is_mapped = isinstance(self._loader, DataLoader) and not isinstance(self._loader.dataset, IterableDataset)
        self._length = len(self._loader) if is_mapped else 0
        if is_mapped and not self._length:
            raise ConfigError(f"the split {split!r} has no batch")
        self._epoch, self._next = -1, 0
        self._fetched: Iterator[Any] = iter(())

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a step. Going on from one step to the next costs one batch, going elsewhere an epoch.

        Errors:
            ConfigError: a stream without batches.
        """
        epoch, position = divmod(step, self._length) if self._length else (max(0, self._epoch), self._next)
        if epoch != self._epoch or position < self._next:
            self._begin(epoch)
        while True:
            batch = next(self._fetched, None)
            if batch is None:
                if not self._next:
                    raise ConfigError(f"the split {self._split!r} has no batch")
                self._begin(self._epoch + 1)
                position = 0
                continue
            self._next += 1
            if self._next > position:
                inputs, labels = batch
                return inputs, labels

    def _begin(self, epoch: int) -> None:
        if isinstance(self._loader, DataLoader):
            generator = torch.Generator().manual_seed(random_at(self._seed, self._split, epoch).getrandbits(63))
            self._loader.generator = generator
            if isinstance(self._loader.sampler, RandomSampler):
                self._loader.sampler.generator = generator
        self._epoch, self._next, self._fetched = epoch, 0, iter(self._loader)


def _shuffled(loader: DataLoader[Any], batch_size: int) -> DataLoader[Any]:
    """The same loader in random order, without a smaller batch at the end."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    if loader.batch_size is None or not isinstance(loader.sampler, SequentialSampler | RandomSampler):
        return loader
    if not len(loader.dataset):  # type: ignore[arg-type]
        return loader
    same = ("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn")
    is_enough = len(loader.dataset) >= batch_size  # type: ignore[arg-type]
    return DataLoader(
        loader.dataset, batch_size, shuffle=True, drop_last=is_enough, **{name: getattr(loader, name) for name in same}
    )
