import pytest
import torch
from torch import nn

from mutorch import CostTable, Mutator, count, export
from mutorch.errors import ChoiceError, ConfigError
from mutorch.models import DynamicLinearClsHead, LinearClsHead, SearchableImageClassifier
from mutorch.mutables import OneShotMutableChannel
from mutorch.testing import check_export

STAGES = {"stride_list": [2], "with_se_list": [True], "out_indices": (1,)}
BACKBONE = {
    "type": "AttentiveMobileNetV3",
    "arch_setting": {
        "kernel_size": [[3, 5, 2]],
        "num_blocks": [[1, 2, 1]],
        "expand_ratio": [[4, 4, 1], [6, 6, 1]],
        "num_out_channels": [[8, 8, 8], [8, 16, 8], [16, 32, 16]],
    },
    **STAGES,
}
HEAD = {"type": "DynamicLinearClsHead", "num_classes": 10, "in_channels": 32}
RESIZER = {
    "input_resizer": {"type": "DynamicInputResizer"},
    "mutable_shape": {"type": "OneShotMutableValue", "value_list": [[24, 24], [32, 32]]},
}
CONNECTED = {"connect_with_backbone": "backbone.last_mutable"}


def net():
    torch.manual_seed(0)
    return SearchableImageClassifier(dict(BACKBONE), dict(HEAD), RESIZER, CONNECTED)


def test_exported_classifiers_compute_what_the_supernet_computes():
    check_export(net(), torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)), num_architectures=8)


def test_cost_tables_follow_the_resolution():
    model, x = net(), torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    mutator = Mutator(model)
    table = CostTable.from_model(mutator, x)
    small = {**mutator.space.max, "input_shape": [24, 24]}
    assert table(small).macs < table(mutator.space.max).macs
    for architecture in (small, mutator.space.sample(0)):
        assert table(architecture) == count(export(model, architecture), x)


def test_the_head_follows_the_backbone():
    model = net()
    subnet = export(model, {**Mutator(model).space.max, "backbone.last_channels": 16})
    assert subnet.head.fc.in_features == 16
    assert type(subnet.head.fc) is nn.Linear


def test_without_a_resizer_images_stay_as_they_are():
    model = SearchableImageClassifier(nn.Conv2d(3, 8, 3), LinearClsHead(10, 8))
    assert model.input_resizer is None
    assert model(torch.ones(1, 3, 9, 9)).shape == (1, 10)


def test_features_without_an_extent_need_no_pool():
    head = LinearClsHead(10, 8)
    feature = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head((feature,)), head(feature[:, :, None, None]))


@pytest.mark.parametrize(
    ("connected", "message"),
    [
        ({"connect": "backbone.last_mutable"}, "DynamicLinearClsHead has no method 'connect'; did you mean 'connect_"),
        ({"connect_with_backbone": "backbone.last"}, "there is no 'backbone.last' in this classifier"),
    ],
)
def test_connections_to_nothing_are_refused(connected, message):
    with pytest.raises(ConfigError, match=message):
        SearchableImageClassifier(dict(BACKBONE), dict(HEAD), connect_head=connected)


def test_resizers_of_another_form_are_refused():
    with pytest.raises(ConfigError, match="has the keys input_resizer and mutable_shape, got type"):
        SearchableImageClassifier(nn.Identity(), LinearClsHead(10, 3), {"type": "DynamicInputResizer"})


def test_a_head_of_another_width_than_the_backbone_is_refused():
    with pytest.raises(ChoiceError, match="in_features of DynamicLinear counts 8 channels, the mutable has 16"):
        DynamicLinearClsHead(10, 8).connect_with_backbone(OneShotMutableChannel(16))
