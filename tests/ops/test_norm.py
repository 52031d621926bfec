import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutorch.errors import StateError
from mutorch.mutables import SequentialMutableChannel, SimpleMutableChannel
from mutorch.ops import (
    DynamicBatchNorm1d,
    DynamicBatchNorm2d,
    DynamicBatchNorm3d,
    DynamicGroupNorm,
    DynamicInstanceNorm2d,
    DynamicLayerNorm,
    DynamicSyncBatchNorm,
    set_execution_,
)
from mutorch.testing import OpSuite


class TestDynamicBatchNorm1d(OpSuite):
    dynamic, attrs = DynamicBatchNorm1d, ("num_features",)

    def static(self):
        return nn.BatchNorm1d(8)

    def inputs(self, active):
        return torch.randn(4, len(active["num_features"]), 3)

    def reference(self, static, active, x):
        kept = active["num_features"]
        parts = (part[kept] for part in (static.running_mean, static.running_var, static.weight, static.bias))
        return F.batch_norm(x, *parts)


class TestDynamicBatchNorm2d(TestDynamicBatchNorm1d):
    dynamic = DynamicBatchNorm2d

    def static(self):
        return nn.BatchNorm2d(8, momentum=None)

    def inputs(self, active):
        return torch.randn(4, len(active["num_features"]), 3, 2)

    def test_inputs_of_another_dimension_are_refused(self):
        with pytest.raises(ValueError, match="expected 4D input"):
            self.dynamic(8)(torch.zeros(2, 8))


class TestDynamicBatchNorm3d(TestDynamicBatchNorm1d):
    dynamic = DynamicBatchNorm3d

    def static(self):
        return nn.BatchNorm3d(8)

    def inputs(self, active):
        return torch.randn(4, len(active["num_features"]), 3, 2, 2)


class TestDynamicLayerNorm(OpSuite):
    dynamic, attrs = DynamicLayerNorm, ("num_features",)

    def static(self):
        return nn.LayerNorm(8)

    def inputs(self, active):
        return torch.randn(2, 5, len(active["num_features"]))

    def reference(self, static, active, x):
        kept = active["num_features"]
        return F.layer_norm(x, (len(kept),), static.weight[kept], static.bias[kept])


class TestDynamicGroupNorm(OpSuite):
    dynamic, attrs = DynamicGroupNorm, ("num_channels",)

    def static(self):
        return nn.GroupNorm(4, 12)

    def selections(self, sizes):
        yield {"num_channels": list(range(12))}
        yield {"num_channels": [0, 1, 2, 3, 4, 5]}  # two groups
        yield {"num_channels": [0, 2, 3, 5, 7, 8, 9, 11]}  # two of each

    def inputs(self, active):
        return torch.randn(2, len(active["num_channels"]), 3)

    def reference(self, static, active, x):
        kept = active["num_channels"]
        groups = len(set((kept // 3).tolist()))
        return F.group_norm(x, groups, static.weight[kept], static.bias[kept])


class TestDynamicInstanceNorm2d(OpSuite):
    dynamic, attrs = DynamicInstanceNorm2d, ("num_features",)

    def static(self):
        return nn.InstanceNorm2d(8, affine=True, track_running_stats=True)

    def inputs(self, active):
        return torch.randn(2, len(active["num_features"]), 3, 3)

    def reference(self, static, active, x):
        kept = active["num_features"]
        parts = (part[kept] for part in (static.running_mean, static.running_var, static.weight, static.bias))
        return F.instance_norm(x, *parts, use_input_stats=False)


@pytest.mark.parametrize("alias", ["in_channels", "out_channels"])
def test_both_sides_are_the_features(alias, caplog):
    norm, first = DynamicBatchNorm2d(8), SequentialMutableChannel(8)
    norm.register_mutable_attr(alias, first)
    assert norm.get_mutable_attr("num_features") is first
    norm.register_mutable_attr("out_channels", SequentialMutableChannel(8))
    assert norm.get_mutable_attr("in_channels") is first  # the first is kept
    assert "has a mutable already" in caplog.text
    second = SequentialMutableChannel(8)
    norm.register_mutable_attr("num_features", second)
    assert norm.get_mutable_attr(alias) is second


def test_a_norm_without_weights_and_statistics_has_nothing_to_decide():
    with pytest.raises(StateError, match="neither weights nor statistics"):
        DynamicBatchNorm2d(4, affine=False, track_running_stats=False).register_mutable_attr(
            "num_features", SequentialMutableChannel(4)
        )
    with pytest.raises(RuntimeError, match="has no weights"):
        DynamicLayerNorm(4, elementwise_affine=False).register_mutable_attr("num_features", SequentialMutableChannel(4))
    with pytest.raises(RuntimeError, match="over one dimension"):
        DynamicLayerNorm((4, 4)).register_mutable_attr("num_features", SequentialMutableChannel(4))


def test_statistics_in_mask_mode_change_only_where_something_is_active():
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    found = {}
    for mode in ("slice", "mask"):
        norm, kept = DynamicBatchNorm1d(4), SimpleMutableChannel(4)
        norm.register_mutable_attr("num_features", kept)
        kept.current_choice = [1, 3]
        set_execution_(norm, mode)
        norm(x[:, [1, 3]] if mode == "slice" else x * kept.current_mask)
        found[mode] = norm.state_dict()["running_mean"]
    assert torch.allclose(found["slice"], found["mask"])
    assert found["mask"][0] == 0
    assert found["mask"][1] != 0


def test_a_synchronised_norm_of_one_process_is_a_batch_norm():
    norm, plain, kept = DynamicSyncBatchNorm(4), nn.BatchNorm2d(2), SequentialMutableChannel(4)
    norm.register_mutable_attr("in_channels", kept)
    kept.current_choice = 2
    x = torch.randn(3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(norm(x), plain(x))
    assert torch.allclose(norm.state_dict()["running_mean"][:2], plain.running_mean)
