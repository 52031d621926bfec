"""Norms whose features are decided by a mutable."""

from __future__ import annotations

from typing import Any

from torch import nn

from mutorch.errors import StateError

from .dynamic import DynamicState
from .grouped import FollowedGroups, GroupedWeight
from .op import Attr, DynamicOp

FEATURES = {"num_features": Attr((("weight", 0), ("bias", 0), ("running_mean", 0), ("running_var", 0)), "num_features")}
BOTH_SIDES = {"in_channels": "num_features", "out_channels": "num_features"}


class DynamicBatchNormOp(DynamicOp):
    """What all batch norms share: `num_features`, which `in_channels` and `out_channels` stand for too.

    Running statistics are cut as the weights are. Training writes those of the active features back to where they belong.
    """

    attrs = FEATURES
    aliases = BOTH_SIDES

    def check_mutable_attr(self, name: str, mutable: Any) -> None:
        super().check_mutable_attr(name, mutable)
        if not self.__dict__["affine"] and not self.__dict__["track_running_stats"]:
            raise StateError(
                f"this {type(self).__name__} has neither weights nor statistics: nothing follows a mutable"
            )


class DynamicBatchNorm1d(DynamicBatchNormOp, nn.BatchNorm1d):
    """An `nn.BatchNorm1d` whose `num_features` can be decided."""

    static_class = nn.BatchNorm1d


class DynamicBatchNorm2d(DynamicBatchNormOp, nn.BatchNorm2d):
    """An `nn.BatchNorm2d` whose `num_features` can be decided.

    Example:
        >>> from mutorch.mutables import SimpleMutableChannel
        >>> norm, kept = DynamicBatchNorm2d(4), SimpleMutableChannel(4)
        >>> norm.register_mutable_attr("num_features", kept)
        >>> kept.current_choice = [1, 3]
        >>> norm.running_mean.shape, norm.num_features
        (torch.Size([2]), 2)
    """

    static_class = nn.BatchNorm2d


class DynamicBatchNorm3d(DynamicBatchNormOp, nn.BatchNorm3d):
    """An `nn.BatchNorm3d` whose `num_features` can be decided."""

    static_class = nn.BatchNorm3d


class DynamicSyncBatchNorm(DynamicBatchNormOp, nn.SyncBatchNorm):
    """An `nn.SyncBatchNorm` whose `num_features` can be decided."""

    static_class = nn.SyncBatchNorm


class DynamicLayerNorm(DynamicOp, nn.LayerNorm):
    """An `nn.LayerNorm` over the last dimension whose `num_features` can be decided; it normalises over the active ones.

    Errors:
        StateError: when a mutable is registered: it has no weights, or normalises over several dimensions.
    """

    static_class = nn.LayerNorm
    attrs = {"num_features": Attr((("weight", 0), ("bias", 0)), "normalized_shape", index=0)}
    aliases = BOTH_SIDES

    @property
    def num_features(self) -> int:
        """How many features there are."""
        return int(self.normalized_shape[0])

    def check_mutable_attr(self, name: str, mutable: Any) -> None:
        if len(self.__dict__["normalized_shape"]) != 1:
            raise StateError(
                f"only a norm over one dimension can follow a mutable, not {self.__dict__['normalized_shape']}"
            )
        super().check_mutable_attr(name, mutable)
        if not self.__dict__["elementwise_affine"]:
            raise StateError(f"this {type(self).__name__} has no weights: nothing follows a mutable")


class DynamicGroupNorm(DynamicOp, nn.GroupNorm):
    """An `nn.GroupNorm` whose `num_channels` can be decided.

    Channels stay in their groups: a group without channels goes, and the others must keep equally many.
    """

    static_class = nn.GroupNorm
    attrs = {"num_channels": Attr((("weight", 0), ("bias", 0)), "num_channels")}
    aliases = {"in_channels": "num_channels", "out_channels": "num_channels", "num_features": "num_channels"}
    followed = ("num_groups",)

    def describe(self, state: DynamicState) -> None:
        super().describe(state)
        extent = self.extent("num_channels")
        if extent is not None:
            groups = GroupedWeight(self.__dict__["num_groups"], extent.size, extent.size, extent, extent)
            state.sizes["num_groups"] = (FollowedGroups((), weight=groups),)


class DynamicInstanceNormOp(DynamicOp):
    """What all instance norms share: `num_features`."""

    attrs = FEATURES
    aliases = BOTH_SIDES


class DynamicInstanceNorm1d(DynamicInstanceNormOp, nn.InstanceNorm1d):
    """An `nn.InstanceNorm1d` whose `num_features` can be decided."""

    static_class = nn.InstanceNorm1d


class DynamicInstanceNorm2d(DynamicInstanceNormOp, nn.InstanceNorm2d):
    """An `nn.InstanceNorm2d` whose `num_features` can be decided."""

    static_class = nn.InstanceNorm2d


class DynamicInstanceNorm3d(DynamicInstanceNormOp, nn.InstanceNorm3d):
    """An `nn.InstanceNorm3d` whose `num_features` can be decided."""

    static_class = nn.InstanceNorm3d
