"""Whether layers whose arguments are searched for can be built at every architecture of a space."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from mutorch.errors import ChoiceError, SpaceError
from mutorch.ops.dynamic import dynamic_modules
from mutorch.space import SearchSpace


def check_buildable(model: nn.Module, space: SearchSpace, names: Mapping[int, str]) -> None:
    """Nothing, if the space has no architecture at which a layer is known not to be built.

    Args:
        names: the `id` of each mutable to its decision's name.

    Errors:
        ChoiceError: it has one; names the layer, the choices and the cause.
    """
    seen: set[int] = set()
    for path, _, state in dynamic_modules(model):
        twins = state.twins
        if twins is None or id(twins) in seen:
            continue
        seen.add(id(twins))
        decisions = [names.get(id(source)) for source in twins.arguments.sources]
        for choices, cause in twins.faults:
            fixed = {name: choice for name, choice in zip(decisions, choices, strict=True) if name is not None}
            if _is_allowed(space, fixed):
                where = f"{path!r}: " if path else ""
                raise ChoiceError(
                    f"{where}{cause}, and the space has architectures with {fixed}; rule them out with a Require"
                )


def _is_allowed(space: SearchSpace, fixed: Mapping[str, Any]) -> bool:
    try:
        space.random(0, fixed=fixed)
    except SpaceError:
        return False
    return True
