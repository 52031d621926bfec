"""Residual blocks that may be left out: they give what they are given."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mutorch.mutables.depth import SKIPPED_BY, MutableDepth

_CLASSES: dict[type, type] = {}


def make_skippable_(block: nn.Module, depth: MutableDepth, place: int) -> None:
    """Let `block` give its first argument where `depth` leaves it out, in place: its class becomes a subclass of its own."""
    static = type(block)
    if static not in _CLASSES:
        members = {
            "forward": _unless_skipped(static.forward),
            "unskippable_class": static,
            "__module__": __name__,
            "__doc__": static.__doc__,
            "__reduce_ex__": _reduce,
        }
        _CLASSES[static] = type(f"Skippable{static.__name__}", (static,), members)
    block.__dict__[SKIPPED_BY] = (depth, place)
    block.__class__ = _CLASSES[static]


def make_unskippable_(block: nn.Module) -> None:
    """Undo `make_skippable_`."""
    if block.__dict__.pop(SKIPPED_BY, None) is not None:
        block.__class__ = type(block).unskippable_class  # type: ignore[attr-defined]


def is_skipped(module: nn.Module) -> bool:
    """Whether a module is a block that is left out now."""
    held = vars(module).get(SKIPPED_BY)
    return held is not None and bool(held[0].skips(held[1]))


def _unless_skipped(forward: Callable[..., Any]) -> Callable[..., Any]:
    def forward_unless_skipped(self: Any, *args: Any, **kwargs: Any) -> Any:
        depth, place = self.__dict__[SKIPPED_BY]
        if not depth.skips(place):
            return forward(self, *args, **kwargs)
        return args[0] if args else next(value for value in kwargs.values() if isinstance(value, Tensor))

    return forward_unless_skipped


def _reduce(self: Any, protocol: Any) -> tuple[Any, ...]:
    return _rebuild, (type(self).unskippable_class,), dict(self.__dict__)


def _rebuild(static: type[nn.Module]) -> Any:
    module = static.__new__(static)
    module.__dict__[SKIPPED_BY] = None
    make_skippable_(module, None, 0)  # type: ignore[arg-type]  # the state that follows has both
    return module
