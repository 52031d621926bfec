"""How declared dynamic modules compute."""

from torch import nn

from mutorch.errors import ChoiceError, nearest

from .dynamic import Mode, dynamic_modules


def set_execution_(model: nn.Module, mode: Mode) -> None:
    """Let every dynamic module of a model compute with active channels only (`"slice"`), or with all and zeros (`"mask"`).

    For models that `searchable` made, `mutorch.channels.set_mode_` also checks that masks can express them.
    """
    if mode not in ("slice", "mask"):
        raise ChoiceError(f"no mode {mode!r}; {nearest(mode, ('slice', 'mask'))}")
    for _, _, state in dynamic_modules(model):
        state.execution.mode = mode
