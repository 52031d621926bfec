import copy

import pytest
import torch

from mutorch.models import ImageClassifier, LinearClsHead, SearchableShuffleNetV2
from mutorch.mutators import Mutator
from mutorch.registry import MODELS

BLOCK = {"type": "OneShotMutableOP", "candidates": {"k3": {"type": "ShuffleBlock", "kernel_size": 3}}}
CONFIG = {
    "type": "ImageClassifier",
    "backbone": {"type": "SearchableShuffleNetV2", "arch_setting": [[8, 1, BLOCK]], "out_indices": [1]},
    "head": {"type": "mmrazor.LinearClsHead", "num_classes": 5, "in_channels": 1024},
}
X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_classifier_builds_from_configs_and_gives_logits():
    before = copy.deepcopy(CONFIG)
    model = MODELS.build(CONFIG)
    assert Mutator(model).space.names == ("backbone.layers.0.0",)
    assert model(X).shape == (2, 5)
    assert before == CONFIG


def test_classifier_takes_built_modules():
    backbone = SearchableShuffleNetV2([[8, 1, BLOCK]], out_indices=(0, 1))
    head = LinearClsHead(5, 1024)
    model = ImageClassifier(backbone, head)
    assert model.backbone is backbone
    assert model.head is head


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x * 0, x), lambda x: [x]])
def test_head_reads_the_last_feature(wrap):
    head = LinearClsHead(num_classes=5, in_channels=3)
    assert torch.allclose(head(wrap(X)), head.fc(X.mean((2, 3))), atol=1e-6)
