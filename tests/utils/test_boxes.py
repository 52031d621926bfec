"""Boxes: how much they overlap, and which of several stay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.errors import ConfigError
from mutorch.utils.boxes import area, kept, overlap, padded


@st.composite
def boxes(draw, count=6):
    corners = draw(st.lists(st.tuples(*[st.integers(0, 20)] * 4), min_size=count, max_size=count))
    return torch.tensor([[min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1] for a, b, c, d in corners]).float()


def drawn(box):
    """The box as pixels that are on."""
    x1, y1, x2, y2 = box.int().tolist()
    canvas = torch.zeros(22, 22, dtype=torch.bool)
    canvas[y1:y2, x1:x2] = True
    return canvas


@given(boxes(count=2))
@settings(max_examples=20)
def test_overlap_is_the_share_of_pixels_that_both_boxes_have(pair):
    one, other = drawn(pair[0]), drawn(pair[1])
    assert overlap(pair[0], pair[1]).item() == pytest.approx((one & other).sum().item() / (one | other).sum().item())
    assert area(pair[0]).item() == one.sum().item()


@given(boxes(count=2))
@settings(max_examples=20)
def test_generalized_overlap_is_symmetric_and_never_above_the_plain_one(pair):
    general = overlap(pair[0], pair[1], generalized=True)
    assert general == overlap(pair[1], pair[0], generalized=True)
    assert -1 <= general <= overlap(pair[0], pair[1]) + 1e-6


def test_boxes_that_do_not_meet_are_pulled_together_by_the_generalized_overlap():
    near, far = torch.tensor([4.0, 0, 6, 2]), torch.tensor([9.0, 0, 11, 2])
    box = torch.tensor([0.0, 0, 2, 2])
    assert overlap(box, near) == overlap(box, far) == 0
    assert overlap(box, near, generalized=True) > overlap(box, far, generalized=True)


def test_a_box_without_area_overlaps_nothing_not_even_itself():
    empty = torch.tensor([3.0, 3, 3, 5])
    assert overlap(empty, empty) == 0
    assert overlap(torch.tensor([5.0, 5, 3, 3]), torch.tensor([0.0, 0, 9, 9])) == 0


def slow_kept(image_boxes, labels, threshold):
    """Non-maximum suppression as the books write it."""
    stays = []
    for box, label in zip(image_boxes, labels, strict=True):
        rivals = [other for other, kind in stays if kind == label]
        if all(overlap(box, other) <= threshold for other in rivals):
            stays.append((box, label))
    return [box.tolist() for box, _ in stays]


@given(boxes(), st.lists(st.integers(0, 1), min_size=6, max_size=6), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
@settings(max_examples=20)
def test_what_is_kept_is_what_going_through_the_boxes_one_by_one_keeps(image_boxes, labels, threshold):
    mask = kept(image_boxes[None], torch.tensor(labels)[None], overlap_at_most=threshold)[0]
    assert image_boxes[mask].tolist() == slow_kept(image_boxes, labels, threshold)


def test_a_box_that_was_removed_removes_nothing():
    row = torch.tensor(
        [[[0.0, 0, 10, 1], [4, 0, 14, 1], [8, 0, 18, 1]]]
    )  # neighbours overlap by 0.43, the ends by 0.11
    assert kept(row, torch.zeros(1, 3, dtype=torch.int64), overlap_at_most=0.4).tolist() == [[True, False, True]]


def test_images_of_a_batch_do_not_remove_boxes_of_each_other():
    batch = torch.tensor([[[0.0, 0, 4, 4]], [[0.0, 0, 4, 4]]])
    assert kept(batch, torch.zeros(2, 1, dtype=torch.int64)).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"boxes": torch.zeros(1, 4)}, r"image 0 have no 'labels'"),
        ({"boxes": torch.zeros(4), "labels": torch.zeros(1)}, r"must be \(n, 4\), got \(4,\)"),
        ({"boxes": torch.zeros(2, 4), "labels": torch.zeros(3)}, r"has 2 boxes, and 'labels' of shape \(3,\)"),
    ],
)
def test_boxes_of_another_form_are_named(image, message):
    with pytest.raises(ConfigError, match=message):
        padded([image])


def test_no_images_are_an_error():
    with pytest.raises(ConfigError, match="no images"):
        padded([])
