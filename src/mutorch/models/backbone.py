"""What the searchable backbones share: rows to stages, checks of indices, freezing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutorch.errors import ConfigError
from mutorch.mutables import build_candidates

from .mb_block import MBBlock
from .shuffle_unit import ShuffleUnit


def checked_rows(arch_setting: Sequence[Sequence[Any]], columns: Sequence[str]) -> list[Sequence[Any]]:
    """The rows, if each has these columns.

    Errors:
        ConfigError: no rows, or one with too few or too many entries.
    """
    if not arch_setting:
        raise ConfigError(f"arch_setting is empty; give one row [{', '.join(columns)}] for each stage")
    for number, row in enumerate(arch_setting):
        if isinstance(row, str | Mapping) or len(row) != len(columns):
            raise ConfigError(f"row {number} of arch_setting must be [{', '.join(columns)}], got {row!r}")
    return list(arch_setting)


def checked_stages(out_indices: Iterable[int], frozen_stages: int, count: int) -> tuple[int, ...]:
    """`out_indices` as a tuple, if they and `frozen_stages` are stages of a backbone with `count` of them.

    Errors:
        ConfigError: one that is not.
    """
    indices = tuple(out_indices)
    for index in indices:
        if index not in range(count):
            raise ConfigError(f"out_indices must each be from 0 to {count - 1}, got {index!r} in {indices}")
    if frozen_stages not in range(-1, count):
        raise ConfigError(f"frozen_stages must be from -1 (none) to {count - 1}, got {frozen_stages!r}")
    return indices


def build_stage(
    block_cfg: Mapping[str, Any], *, in_channels: int, out_channels: int, num_blocks: int, stride: int
) -> nn.Sequential:
    """Blocks one after the other, the first with the stride. `block_cfg` is a mutable's or a plain block's."""
    if not isinstance(block_cfg, Mapping):
        # A built module would be one module at several places.
        raise ConfigError(f"a block of arch_setting is a config with `type`, got {type(block_cfg).__name__}")
    stage = nn.Sequential()
    for number in range(num_blocks):
        arguments = {
            "in_channels": out_channels if number else in_channels,
            "out_channels": out_channels,
            "stride": 1 if number else stride,
        }
        # The one function that knows which configs hand their arguments on to candidates.
        stage.append(build_candidates({"block": block_cfg}, arguments)["block"])
    return stage


def with_checkpoints_(backbone: nn.Module) -> None:
    """Make every block inside `backbone` compute its inside again during backward."""
    for module in backbone.modules():
        if isinstance(module, ShuffleUnit | MBBlock):
            module.with_cp = True


def freeze_(modules: Iterable[nn.Module]) -> None:
    """Keep these in eval mode and without gradients."""
    for module in modules:
        module.eval()
        module.requires_grad_(False)


def features_of(x: Tensor, layers: Iterable[nn.Module], out_indices: Sequence[int]) -> tuple[Tensor, ...]:
    """What the layers of these numbers give, each applied to what the one before gave."""
    features = []
    for number, layer in enumerate(layers):
        x = layer(x)
        if number in out_indices:
            features.append(x)
    return tuple(features)


def norms_eval_(backbone: nn.Module) -> None:
    """Keep running statistics: every batch norm in eval mode."""
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def is_pretrained(init_cfg: object) -> bool:
    """Whether `init_cfg` (a dict, or a list of them) asks for the weights of a file."""
    entries = init_cfg if isinstance(init_cfg, list | tuple) else [init_cfg]
    return any(isinstance(entry, Mapping) and entry.get("type") == "Pretrained" for entry in entries)


def convs_and_norms(backbone: nn.Module) -> Iterator[tuple[str, nn.Conv2d | _BatchNorm | nn.GroupNorm]]:
    """The layers that an initialization sets, with their names."""
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d | _BatchNorm | nn.GroupNorm):
            yield name, module
