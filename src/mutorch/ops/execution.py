"""How declared dynamic modules compute."""

from torch import nn

from mutorch.errors import ChoiceError, nearest

from .dynamic import Mode, dynamic_modules


def set_execution_(model: nn.Module, mode: Mode) -> None:
    """Let every dynamic module of a model compute with active channels only (`"slice"`), or with all and zeros (`"mask"`).

    For models that `searchable` made, `mutorch.channels.set_mode_` also checks that masks can express them.

    Errors:
        ChoiceError: another mode; mode `"mask"` of a layer whose arguments are mutables: zeros cannot stand for another
            padding, or another rate of dropout.
    """
    if mode not in ("slice", "mask"):
        raise ChoiceError(f"no mode {mode!r}; {nearest(mode, ('slice', 'mask'))}")
    for path, module, state in dynamic_modules(model):
        if mode == "mask" and (state.twins is not None or (state.own is not None and state.own.twins is not None)):
            raise ChoiceError(
                f"{path!r}, a {type(module).__name__}, has mutables as arguments, and computes with the active part only; "
                "leave it in mode 'slice'"
            )
    for _, _, state in dynamic_modules(model):
        state.execution.mode = mode
