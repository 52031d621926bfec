import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from mutorch.errors import ConfigError
from mutorch.recipes import Batches, Splits
from mutorch.testing import ClutteredDigits

DATA = Splits(
    {"train": TensorDataset(torch.arange(10), torch.zeros(10)), "val": TensorDataset(torch.arange(3), torch.zeros(3))}
)


def walked(count, **options):
    batches = Batches(DATA, "train", 4, **{"seed": 0, **options})
    return [batches.at(step)[0].tolist() for step in range(count)]


def test_a_batch_is_a_function_of_seed_and_step():
    assert walked(6) == walked(6)
    assert walked(6) != walked(6, seed=1)
    assert Batches(DATA, "train", 4, 0).at(5)[0].tolist() == walked(6)[5]


def test_every_epoch_is_shuffled_anew_and_drops_what_is_left_over():
    first, second = walked(2), walked(4)[2:]
    assert len({*sum(first, [])}) == 8
    assert first != second


def test_going_back_is_going_there():
    batches = Batches(DATA, "train", 4, 0)
    assert [batches.at(step)[0].tolist() for step in (3, 1, 1, 2)] == [walked(4)[step] for step in (3, 1, 1, 2)]


def test_a_split_smaller_than_a_batch_is_one_batch():
    assert sorted(Batches(DATA, "val", 8, 0).at(7)[0].tolist()) == [0, 1, 2]


def test_validation_data_are_shuffled_too():
    found = [tuple(Batches(DATA, "val", 3, 0).at(step)[0].tolist()) for step in range(12)]
    assert len(set(found)) > 1


def test_the_digits_are_data_as_they_are():
    inputs, labels = Batches(ClutteredDigits(), "val", 64, 0).at(30)
    assert inputs.shape == (64, 1, 10, 10)
    assert labels.shape == (64,)


class Stream(IterableDataset):
    def __iter__(self):
        yield from ((torch.tensor(number), 0) for number in range(4))


class Streamed:
    def __init__(self, dataset):
        self.dataset = dataset

    def loader(self, split, batch_size):
        return DataLoader(self.dataset, batch_size)


def test_a_stream_is_read_again_from_its_beginning():
    batches = Batches(Streamed(Stream()), "train", 2, 0)
    assert [batches.at(step)[0].tolist() for step in range(3)] == [[0, 1], [2, 3], [0, 1]]


def test_no_batches_are_refused():
    with pytest.raises(ConfigError, match="the split 'train' has no batch"):
        Batches(Streamed(TensorDataset(torch.zeros(0), torch.zeros(0))), "train", 2, 0)


def test_an_unknown_split_is_refused_and_the_nearest_named():
    with pytest.raises(ConfigError, match="no split 'vall'; did you mean 'val'"):
        DATA.loader("vall", 2)
