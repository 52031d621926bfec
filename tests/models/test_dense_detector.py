"""The small detector: what its maps mean, what they are trained to be, and its exports."""

import math

import pytest
import torch
from torch import nn

from mutorch.cost import CostTable, count
from mutorch.errors import ConfigError
from mutorch.models import DenseDetector, SearchableShuffleNetV2, detection_loss, detections
from mutorch.models.detection import assign
from mutorch.mutators import Mutator
from mutorch.registry import MODELS
from mutorch.subnet import export
from mutorch.testing import check_export

BLOCK = {
    "type": "OneShotMutableOP",
    "candidates": {
        "k3": {"type": "ShuffleBlock", "kernel_size": 3},
        "k7": {"type": "ShuffleBlock", "kernel_size": 7},
        "xception": {"type": "ShuffleXception"},
    },
}
BACKBONE = {
    "type": "SearchableShuffleNetV2",
    "arch_setting": [[8, 3, BLOCK]],
    "in_channels": 1,
    "with_last_layer": False,
    "out_indices": [0],
}
CONFIG = {"type": "DenseDetector", "backbone": BACKBONE, "num_classes": 3, "in_channels": 8, "neck_channels": 8}
IMAGE = (24, 32)
X = torch.randn(2, 1, *IMAGE, generator=torch.Generator().manual_seed(0))


def build(seed=0):
    torch.manual_seed(seed)
    return MODELS.build(CONFIG)


def target(*entries):
    boxes, labels = zip(*entries, strict=True) if entries else ([], [])
    return {"boxes": torch.tensor(boxes).float().view(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}


def maps(*, classes=3, fill=-9.0):
    """Outputs for one image of `IMAGE` in which nothing is seen: cells of 4 pixels."""
    return torch.full((1, classes, 6, 8), fill), torch.zeros(1, 4, 6, 8)


def test_a_detector_gives_a_class_map_and_a_box_map():
    logits, boxes = build()(X)
    assert logits.shape == (2, 3, 6, 8)
    assert boxes.shape == (2, 4, 6, 8)


def test_every_box_is_around_the_middle_of_its_cell():
    _, boxes = build()(X)
    x, y = 4 * torch.arange(8) + 2, 4 * torch.arange(6) + 2
    assert ((boxes[:, 0] < x) & (x < boxes[:, 2])).all()
    assert ((boxes[:, 1] < y[:, None]) & (y[:, None] < boxes[:, 3])).all()


def test_an_untrained_detector_sees_next_to_nothing():
    assert all(len(image["scores"]) == 0 for image in detections(build().eval()(X)))


def test_exported_detectors_compute_what_the_supernet_computes():
    check_export(build(), X)


def test_costs_of_the_table_are_those_of_the_exported_detector():
    net = build()
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, X[:1])
    for seed in range(4):
        architecture = mutator.space.sample(seed)
        exported = count(export(net, architecture), X[:1])
        assert (table(architecture).macs, table(architecture).params) == (exported.macs, exported.params)


def test_a_cell_sees_the_box_around_it_near_its_middle():
    classes, boxes = assign([target(([4, 4, 16, 16], 2))], maps()[0], IMAGE)
    seen = {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3)}
    assert {tuple(cell) for cell in (classes[0] == 2).nonzero().tolist()} == seen
    assert boxes[0, 2, 2].tolist() == [4, 4, 16, 16]
    assert (classes == -1).sum() == 6 * 8 - len(seen)


def test_of_a_large_box_only_the_middle_is_trained():
    classes, _ = assign([target(([0, 0, 32, 24], 0))], maps()[0], IMAGE)
    assert (classes == 0).sum() == 4  # the four cells whose middles are 2 pixels from (16, 12)


def test_a_box_too_small_for_the_middle_of_any_cell_is_seen_by_the_cell_that_it_lies_in():
    classes, _ = assign([target(([4.1, 4.1, 5, 5], 1))], maps()[0], IMAGE)
    assert (classes == 1).nonzero().tolist() == [[0, 1, 1]]


def test_of_two_boxes_around_a_cell_the_smaller_one_is_seen():
    classes, _ = assign([target(([0, 0, 20, 20], 0), ([8, 8, 12, 12], 1))], maps()[0], IMAGE)
    assert classes[0, 2, 2] == 1
    assert classes[0, 1, 2] == 0


def test_maps_that_say_what_they_are_trained_to_say_have_no_loss_and_are_read_back():
    wanted = [target(([4, 4, 16, 16], 2), ([17, 9, 31, 23], 0)), target()]
    logits, boxes = torch.full((2, 3, 6, 8), -20.0), torch.zeros(2, 4, 6, 8)
    classes, goals = assign(wanted, logits, IMAGE)
    for image, row, column in (classes >= 0).nonzero().tolist():
        logits[image, classes[image, row, column], row, column] = 20
    boxes = goals.movedim(-1, 1)
    assert detection_loss((logits, boxes), wanted, IMAGE) < 1e-4
    first, second = detections((logits, boxes))
    assert sorted(first["labels"].tolist()) == [0, 2]
    assert first["boxes"][first["labels"] == 2].tolist() == [[4, 4, 16, 16]]
    assert len(second["boxes"]) == 0


@pytest.mark.parametrize("entries", [[], [([4, 4, 16, 16], 2)]], ids=["nothing", "a box"])
def test_training_lowers_the_loss_and_reaches_every_parameter(entries):
    model = export(build(), Mutator(build()).space.sample(0))
    wanted = [target(*entries)] * 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = detection_loss(model(X), wanted, IMAGE)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_box_anywhere_has_a_gradient():
    logits, boxes = maps()
    boxes[:, 2:] = 2
    boxes.requires_grad_()
    detection_loss((logits, boxes), [target(([20, 12, 28, 20], 0))], IMAGE).backward()
    assert boxes.grad[0, :, 4, 6].abs().sum() > 0


def test_the_best_of_several_cells_that_see_one_thing_stays():
    logits, boxes = maps()
    boxes[0] = torch.tensor([4.0, 4, 16, 16])[:, None, None]
    logits[0, 1, 2, 2], logits[0, 1, 2, 3], logits[0, 0, 2, 2] = 2.0, 3.0, 1.0
    (found,) = detections((logits, boxes))
    assert found["labels"].tolist() == [1, 0]
    assert found["scores"].tolist() == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-1))])
    (fewest,) = detections((logits, boxes), max_boxes=1)
    assert fewest["labels"].tolist() == [1]


def test_a_backbone_of_several_maps_gives_its_last():
    backbone = SearchableShuffleNetV2(
        [[8, 1, BLOCK], [16, 1, BLOCK]], in_channels=1, with_last_layer=False, out_indices=(0, 1)
    )
    assert DenseDetector(backbone, 3, in_channels=16)(X)[0].shape == (2, 3, 3, 4)


def test_a_backbone_of_other_channels_is_named_when_called():
    with pytest.raises(ConfigError, match=r"in_channels=8; it gave \(2, 4, 24, 32\)"):
        DenseDetector(nn.Conv2d(1, 4, 1), 3, in_channels=8)(X)


def test_what_cannot_be_trained_is_an_error():
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        DenseDetector(nn.Identity(), 0, in_channels=1)
    with pytest.raises(ConfigError, match="label 3; the model has the classes 0 to 2"):
        detection_loss(maps(), [target(([4, 4, 16, 16], 3))], IMAGE)
    with pytest.raises(ConfigError, match="1 images and 2 targets"):
        detection_loss(maps(), [target(), target()], IMAGE)
