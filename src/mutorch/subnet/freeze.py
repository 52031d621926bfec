"""From a sample that names what matters to a plain model."""

from collections.abc import Mapping

from torch import nn

from mutorch.mutators import Mutator, group, unwrap
from mutorch.space import Choice

from .export import export


def freeze(net: nn.Module, sample: Mapping[str, Choice], *, mutator: Mutator | None = None) -> nn.Module:
    """The subnet of `sample` as a new plain model; `net` is left as it is.

    Like `export`, but `sample` may leave out what does not matter: decisions inside candidates that it does not choose.

    Args:
        net: the supernet, or a parallel wrapper of it.
        sample: decision to choice.
        mutator: needed only where it has custom groups or constraints of its own.

    Errors:
        SpaceError: unknown decisions, with the nearest names; one that matters and is missing.
        ConstraintError: a rule of the model that does not hold.
        ChoiceError, ExportError: see `export`.

    Example:
        >>> from mutorch.mutables import OneShotMutableOP
        >>> activation = OneShotMutableOP({"relu": nn.ReLU(), "gelu": nn.GELU()}, alias="activation")
        >>> net = OneShotMutableOP({"act": nn.Sequential(activation), "skip": nn.Identity()}, alias="op")
        >>> freeze(net, {"op": "skip"})
        Identity()
        >>> freeze(net, {"op": "act", "activation": "gelu"})
        Sequential(
          (0): GELU(approximate='none')
        )
    """
    space = group(unwrap(net))[0] if mutator is None else mutator.space
    return export(net, space.complete(sample), mutator=mutator)
