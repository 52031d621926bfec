"""Mean average precision, against values computed by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mutorch.errors import ConfigError
from mutorch.utils import mean_average_precision
from mutorch.utils.boxes import overlap

BOX, FAR = [0.0, 0, 10, 10], [20.0, 20, 30, 30]


def target(*entries):
    """Boxes and labels of an image, each (box, label)."""
    boxes, labels = zip(*entries, strict=True) if entries else ([], [])
    return {"boxes": torch.tensor(boxes).view(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}


def predicted(*entries):
    """Of an image, each (box, label, score)."""
    scores = torch.tensor([score for *_, score in entries], dtype=torch.float32)
    return {**target(*(entry[:2] for entry in entries)), "scores": scores}


def wide(share):
    """A box that overlaps `BOX` by so much: the same one, cut."""
    return [0.0, 0, 10 * share, 10]


def test_what_is_found_exactly_is_perfect():
    targets = [target((BOX, 0), (FAR, 1)), target((FAR, 0)), target()]
    predictions = [predicted((BOX, 0, 0.9), (FAR, 1, 0.2)), predicted((FAR, 0, 0.4)), predicted()]
    assert mean_average_precision(predictions, targets) == 1


def test_nothing_found_is_zero():
    assert mean_average_precision([predicted()], [target((BOX, 0))]) == 0


def test_a_wrong_class_or_another_image_finds_nothing():
    assert mean_average_precision([predicted((BOX, 1, 0.9))], [target((BOX, 0))]) == 0
    assert mean_average_precision([predicted(), predicted((BOX, 0, 0.9))], [target((BOX, 0)), target()]) == 0


def test_a_known_example():
    # Best first: right, wrong, right. Precision at recall 1/2 is 1, at recall 1 it is 2/3: 51 recalls from 0 to 0.5, 50 above.
    predictions = [predicted((BOX, 0, 0.9), (FAR, 0, 0.8)), predicted((BOX, 0, 0.7))]
    targets = [target((BOX, 0)), target((BOX, 0))]
    assert mean_average_precision(predictions, targets, iou=0.5) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_what_is_not_found_caps_the_recall():
    targets = [target((BOX, 0), (FAR, 0))]
    assert mean_average_precision([predicted((BOX, 0, 0.9))], targets, iou=0.5) == pytest.approx(51 / 101)


def test_a_duplicate_lowers_precision_where_it_stands_before_a_right_one():
    targets = [target((BOX, 0)), target((BOX, 0))]
    once = [predicted((BOX, 0, 0.9)), predicted((BOX, 0, 0.5))]
    twice = [predicted((BOX, 0, 0.9), (BOX, 0, 0.8)), predicted((BOX, 0, 0.5))]
    assert mean_average_precision(once, targets) == 1
    assert mean_average_precision(twice, targets) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_two_boxes_at_one_place_are_found_by_two_predictions():
    targets = [target((BOX, 0), (wide(0.8), 0))]
    assert mean_average_precision([predicted((BOX, 0, 0.9), (BOX, 0, 0.8))], targets, iou=0.7) == 1


@pytest.mark.parametrize(("share", "expected"), [(0.4, 0.0), (0.5, 0.1), (0.62, 0.3), (0.96, 1.0)])
def test_the_average_counts_the_overlaps_that_a_box_reaches(share, expected):
    predictions = [predicted((wide(share), 0, 0.9))]
    assert mean_average_precision(predictions, [target((BOX, 0))]) == pytest.approx(expected)


def test_classes_count_equally_and_those_without_a_box_do_not():
    targets = [target((BOX, 0)), target((BOX, 0)), target((FAR, 7))]
    predictions = [predicted((BOX, 0, 0.9)), predicted((BOX, 0, 0.8)), predicted((FAR, 3, 0.9))]
    assert mean_average_precision(predictions, targets) == 0.5


def test_the_order_of_predictions_and_boxes_says_nothing_only_scores_do():
    targets = [target((BOX, 0), (FAR, 1)), target((BOX, 0))]
    rows = [(BOX, 0, 0.3), (FAR, 0, 0.9), (FAR, 1, 0.5), (wide(0.7), 0, 0.6)]
    one = mean_average_precision([predicted(*rows), predicted()], targets)
    assert 0 < one < 1
    turned = [{name: part.flip(0) for name, part in image.items()} for image in targets]
    assert mean_average_precision([predicted(*reversed(rows)), predicted()], turned) == one


def slow_average_precision(predictions, targets, label, enough):
    """Of one class at one overlap, as COCO describes it, one prediction after the other."""
    count = sum(int((image["labels"] == label).sum()) for image in targets)
    free = [[box for box, kind in zip(t["boxes"], t["labels"], strict=True) if kind == label] for t in targets]
    found = [
        (-float(score), number, box)
        for number, p in enumerate(predictions)
        for box, score, kind in zip(p["boxes"], p["scores"], p["labels"], strict=True)
        if kind == label
    ]
    points, right = [], 0
    for rank, (_, number, box) in enumerate(sorted(found, key=lambda entry: entry[0]), start=1):
        overlaps = [float(overlap(box, other)) for other in free[number]]
        if overlaps and max(overlaps) >= enough:
            del free[number][overlaps.index(max(overlaps))]
            right += 1
        points.append((right / count, right / rank))
    return sum(max((p for r, p in points if r >= at / 100 - 1e-9), default=0) for at in range(101)) / 101


@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.5, 0.75]))
@settings(max_examples=20)
def test_random_boxes_score_what_going_through_them_one_by_one_scores(seed, enough):
    generator = torch.Generator().manual_seed(seed)

    def image(count):
        corners = torch.randint(0, 6, (count, 2), generator=generator)
        boxes = torch.cat([corners, corners + torch.randint(3, 9, (count, 2), generator=generator)], 1).float()
        labels = torch.randint(0, 3, (count,), generator=generator)
        return {"boxes": boxes, "labels": labels, "scores": torch.rand(count, generator=generator)}

    targets, predictions = [image(4) for _ in range(3)], [image(8) for _ in range(3)]
    labels = {int(label) for t in targets for label in t["labels"]}
    expected = [slow_average_precision(predictions, targets, label, enough) for label in labels]
    assert mean_average_precision(predictions, targets, iou=enough) == pytest.approx(sum(expected) / len(expected))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], [target((BOX, 0))]), {}, "0 predictions and 1 targets"),
        (([predicted()], [target()]), {}, "targets have no box"),
        (([target()], [target((BOX, 0))]), {}, "no 'scores'"),
        (([predicted()], [target((BOX, 0))]), {"iou": 1.5}, "above 0 and at most 1"),
        (([predicted()], [target((BOX, 0))]), {"iou": []}, "above 0 and at most 1"),
    ],
)
def test_what_cannot_be_scored_is_an_error(arguments, options, message):
    with pytest.raises(ConfigError, match=message):
        mean_average_precision(*arguments, **options)
