"""The generated detection task."""

import pytest
import torch

from mutorch.errors import ConfigError
from mutorch.testing import DetectionDigits
from mutorch.utils.boxes import overlap

FEW = {"train": 40, "val": 10, "test": 10}


@pytest.fixture(scope="module")
def data():
    return DetectionDigits(counts=FEW)


def test_images_and_boxes_are_the_same_in_every_process_and_others_for_another_seed(data):
    again, other = DetectionDigits(counts=FEW), DetectionDigits(counts=FEW, seed=1)
    assert torch.equal(data["val"].images, again["val"].images)
    assert [t["boxes"].tolist() for t in data["val"].targets] == [t["boxes"].tolist() for t in again["val"].targets]
    assert not torch.equal(data["val"].images, other["val"].images)


def test_fewer_images_are_the_first_of_more_in_what_they_show(data):
    fewer = DetectionDigits(counts=FEW | {"train": 5})
    assert [t["boxes"].tolist() for t in fewer["train"].targets] == [
        t["boxes"].tolist() for t in data["train"].targets[:5]
    ]


def test_every_image_has_one_to_three_digits_that_hardly_overlap(data):
    assert {len(t["labels"]) for t in data["train"].targets} == {1, 2, 3}
    for target in data["train"].targets:
        boxes = target["boxes"]
        between = overlap(boxes[:, None], boxes[None]).fill_diagonal_(0)
        assert between.max() <= 0.05


def test_boxes_lie_in_the_image_and_hold_its_ink():
    quiet = DetectionDigits(counts=FEW, noise=0)["train"]
    for image, target in quiet:
        outside = image[0].clone()
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            assert 0 <= x1 < x2 <= 40
            assert 0 <= y1 < y2 <= 40
            assert 10 <= max(x2 - x1, y2 - y1) <= 20
            assert image[0, y1:y2, x1:x2].max() > 0.35
            outside[y1:y2, x1:x2] = 0
        assert outside.abs().max() == 0


def test_batches_are_images_and_a_target_for_each(data):
    images, targets = next(iter(data.loader("train", 16)))
    assert images.shape == (16, 1, 40, 40)
    assert [t["boxes"].shape[0] for t in targets] == [len(t["labels"]) for t in targets]
    assert data.example_inputs.shape == (1, 1, 40, 40)


def test_a_split_smaller_than_a_batch_is_one_batch(data):
    assert len(data.loader("train", 64)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 16}, "at least 20 pixels, the largest digit's, got 16"),
        ({"max_digits": 0}, "max_digits must be at least 1, got 0"),
        ({"counts": {"valid": 3}}, "no split 'valid'"),
        ({"counts": {"val": 0}}, r"counts\['val'\] is 0"),
    ],
)
def test_arguments_that_make_no_task_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        DetectionDigits(**arguments)


def test_a_split_that_does_not_exist_is_named(data):
    with pytest.raises(ConfigError, match="no split 'validation'"):
        data["validation"]
