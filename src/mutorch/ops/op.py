"""The base of modules that are declared dynamic: which mutable decides which of their sizes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import nn

from mutorch.errors import ChoiceError, MutorchError, StateError, nearest
from mutorch.mutables import BaseMutable, DerivedMutable, MutableChannelContainer, tick
from mutorch.mutables.rules import active_of, has_mask, length_of

from .dynamic import STATE, DynamicState, FollowedSize, _following, active_tensor, followed_size
from .extent import Extent
from .static import MUTABLES, static_copy

EXTENTS = "_extents"
"""The attribute of a dynamic op that holds the extents of its mutables."""
LOGGER = logging.getLogger(__name__)


class UnsupportedAttrError(MutorchError, NotImplementedError, AssertionError):
    """An attribute that a dynamic op has not, or that nothing can decide."""


class UnfixedError(StateError):
    """A static op asked for while a mutable is still open."""


@dataclass(frozen=True, slots=True)
class Attr:
    """What of an op follows the mutable of one attribute.

    Attributes:
        tensors: parameters and buffers, with the dimension that is cut.
        size: the attribute that is read as the active size, or as the value; `None`: the mutable's own name has no such.
        index: its place in a tuple.
        parts: children that are dynamic ops themselves, with the attribute of theirs.
        channels: whether the mutable says which channels are active; else it is a value.
        in_mask_mode: whether a value counts in mask mode too, where tensors keep their shapes.
    """

    tensors: tuple[tuple[str, int], ...] = ()
    size: str | None = None
    index: int | None = None
    parts: tuple[tuple[str, str], ...] = ()
    channels: bool = True
    in_mask_mode: bool = True


@dataclass(frozen=True, slots=True)
class FollowedValue(FollowedSize):
    """An attribute that is the choice of a mutable."""

    mutable: Any = None
    always: bool = True

    def value(self) -> Any:
        """The choice now."""
        return self.mutable.current_choice

    @property
    def in_mask_mode(self) -> bool:
        """Whether it is no size of a tensor."""
        return self.always


class DynamicOp(nn.Module):
    """A module whose sizes are decided by mutables; the base of `DynamicConv2d` and the others (seed 001, dynamic ops).

    It computes what its static class computes until a mutable is registered. Then it computes the active part: parameters
    stay whole under their own names, and reading one gives what is active now, as everywhere in mutorch.

    A subclass names its torch class (`static_class`), as its second base too, and what follows which attribute (`attrs`).

    Attributes:
        mutable_attrs: the mutables that are registered, by attribute.
        aliases: other names of attributes: `in_channels` of a linear layer are its `in_features`.
    """

    static_class: ClassVar[type[nn.Module]] = nn.Module
    attrs: ClassVar[Mapping[str, Attr]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}
    followed: ClassVar[tuple[str, ...]] = ()
    mutable_attrs: nn.ModuleDict

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.attrs.values() if "attrs" in vars(cls) else ()
        for name in {tensor for attr in own for tensor, _ in attr.tensors}:
            setattr(cls, name, active_tensor(name))
        for name in {attr.size for attr in own if attr.size is not None} | set(vars(cls).get("followed", ())):
            setattr(cls, name, followed_size(name))
        if "static_class" in vars(cls) and "forward" not in vars(cls):
            cls.forward = _following(cls.static_class.forward)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begin()

    @classmethod
    def convert_from(cls, module: nn.Module) -> Self:
        """A dynamic op with the parameters, buffers, hooks and settings of a static one; it computes the same.

        The tensors are not copied: they are those of `module`, so that optimizers and tied weights stay as they are.

        Errors:
            TypeError: a module of another class than the op's static one.
        """
        cls._check_static(module)
        op = cls.__new__(cls)
        op.__dict__.update({name: copy.copy(held) if name in _HELD else held for name, held in vars(module).items()})
        op._begin()
        return op

    @classmethod
    def convert_(cls, module: nn.Module) -> Self:
        """The same module, made dynamic in place: whatever holds it goes on holding it.

        Errors:
            TypeError: a module of another class than the op's static one.
        """
        cls._check_static(module)
        module.__class__ = cls
        op: Self = module  # type: ignore[assignment]
        op._begin()
        return op

    @classmethod
    def _check_static(cls, module: nn.Module) -> None:
        if not isinstance(module, cls.static_class) or isinstance(module, DynamicOp):
            raise TypeError(f"{cls.__name__} is made from a {cls.static_class.__name__}, got {type(module).__name__}")

    def _begin(self) -> None:
        """What a dynamic op has beside the static one."""
        self.__dict__[STATE] = DynamicState()
        self.__dict__[EXTENTS] = {}
        self.mutable_attrs = nn.ModuleDict()

    # ---- mutables ----------------------------------------------------------------------------------------------------

    def register_mutable_attr(self, attr: str, mutable: Any) -> None:
        """Let `mutable` decide an attribute from now on.

        Args:
            attr: a name of `attrs`, or an alias. A name replaces the mutable that was there; an alias whose attribute has
                one already (the other side of a norm) is logged and changes nothing.
            mutable: a channel mutable with as many channels as the attribute counts, or a value.

        Errors:
            UnsupportedAttrError: the op has no such attribute (also `NotImplementedError` and `AssertionError`).
            ChoiceError: a mutable without a mask, or with one of another length (also `ValueError`).
        """
        name = self._own_name(attr)
        if attr not in self.attrs and name in self.mutable_attrs:
            LOGGER.warning("%s of %s is %s, which has a mutable already", attr, type(self).__name__, name)
            return
        self.check_mutable_attr(name, mutable)
        self.mutable_attrs[name] = mutable
        for child, of_child in self.attrs[name].parts:
            part = getattr(self, child)
            if isinstance(part, DynamicOp):
                part.register_mutable_attr(of_child, mutable)
        self.follow()

    def check_mutable_attr(self, name: str, mutable: Any) -> None:
        """Nothing, if `mutable` may decide the attribute.

        Errors:
            ChoiceError: it may not.
        """
        if self.attrs[name].channels:
            if not has_mask(mutable):
                raise ChoiceError(
                    f"{name} of {type(self).__name__} needs a mutable with a current_mask, got {mutable!r}"
                )
            if length_of(mutable) != self.whole_size(name):
                raise ChoiceError(
                    f"{name} of {type(self).__name__} counts {self.whole_size(name)} channels, the mutable has "
                    f"{length_of(mutable)}: {mutable!r}"
                )
        elif not hasattr(mutable, "current_choice"):
            raise ChoiceError(f"{name} of {type(self).__name__} needs a mutable with a current_choice, got {mutable!r}")

    def get_mutable_attr(self, attr: str) -> Any:
        """The mutable that decides an attribute, or the attribute that an alias stands for; `None` without one.

        Errors:
            UnsupportedAttrError: the op has no such attribute.
        """
        name = self._own_name(attr)
        return self.mutable_attrs._modules.get(name)

    @classmethod
    def supports(cls, attr: str) -> bool:
        """Whether an attribute can have a mutable."""
        return cls.aliases.get(attr, attr) in cls.attrs

    def whole_size(self, attr: str) -> int:
        """The size that an attribute has with all channels."""
        described = self.attrs[self._own_name(attr)]
        for child, of_child in described.parts:
            part: DynamicOp = getattr(self, child)
            return part.whole_size(of_child)
        for tensor, dim in described.tensors:
            whole = self._parameters.get(tensor, self._buffers.get(tensor))
            if whole is not None:
                return int(whole.shape[dim])
        whole = self.__dict__[described.size or attr]
        return int(whole if described.index is None else whole[described.index])

    @staticmethod
    def get_current_choice(mutable: Any) -> Any:
        """The choice of a mutable.

        Errors:
            StateError: it has none yet (also `RuntimeError`).
        """
        choice = mutable.current_choice
        if choice is None:
            raise StateError(f"{mutable!r} has no choice yet; set its current_choice")
        return choice

    # ---- following ---------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Let tensors and sizes follow the mutables that are registered now."""
        state: DynamicState = self.__dict__[STATE]
        execution = state.execution
        state = self.__dict__[STATE] = DynamicState(execution)
        self.describe(state)
        tick()

    def describe(self, state: DynamicState) -> None:
        """Write into `state` what follows which mutable; an op that `attrs` does not say all about overrides it."""
        for name, mutable in self.mutable_attrs.items():
            attr = self.attrs[name]
            if attr.channels:
                extent = self._extent_of(name, mutable)
                for tensor, dim in attr.tensors:
                    state.tensors[tensor] = (*state.tensors.get(tensor, ()), (dim, extent))
                follows = FollowedSize((extent,), index=attr.index)
            else:
                follows = FollowedValue((), index=attr.index, mutable=mutable, always=attr.in_mask_mode)
            if attr.size is not None:
                state.sizes[attr.size] = (follows,)

    def extent(self, attr: str) -> Extent | None:
        """What is active along the dimensions of an attribute; `None` without a mutable."""
        mutable = self.get_mutable_attr(attr)
        return None if mutable is None else self._extent_of(self._own_name(attr), mutable)

    def _extent_of(self, name: str, mutable: Any) -> Extent:
        """One extent for each mutable, as long as that is registered: units refresh its mask."""
        extents: dict[str, tuple[Any, Extent]] = self.__dict__[EXTENTS]
        if name not in extents or extents[name][0] is not mutable:
            extents[name] = mutable, Extent.of(_channel(mutable))
        return extents[name][1]

    # ---- plain modules -----------------------------------------------------------------------------------------------

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """The static class."""
        return self.static_class

    def to_static_op(self) -> nn.Module:
        """A new op of the static class with copies of what is active now; it computes the same, bit for bit.

        Errors:
            UnfixedError: a mutable that is neither fixed nor derived nor a container (also `RuntimeError`);
                `mutorch.export` asks for no fixing.
        """
        self.check_fixed()
        return static_copy(self)

    def check_fixed(self) -> None:
        """Nothing, if every mutable is decided.

        Errors:
            UnfixedError: one is not.
        """
        for name, mutable in self.mutable_attrs.items():
            decided = isinstance(mutable, MutableChannelContainer | DerivedMutable) or getattr(
                mutable, "is_fixed", True
            )
            if not decided:
                raise UnfixedError(
                    f"{name} of {type(self).__name__} is still open: {mutable!r}; call its fix_chosen first, or export the "
                    "model with mutorch.export"
                )
        for child in self.children():
            if isinstance(child, DynamicOp):
                child.check_fixed()

    def extras(self) -> tuple[str, ...]:
        """The attributes, parameters and children that the static op does not have."""
        return (MUTABLES, EXTENTS)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        tick()  # parameters move: what was read of them is no longer theirs
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        tick()
        super()._load_from_state_dict(*args, **kwargs)

    def _own_name(self, attr: str) -> str:
        name = self.aliases.get(attr, attr)
        if name not in self.attrs:
            known = nearest(attr, [*self.attrs, *self.aliases])
            raise UnsupportedAttrError(
                f"{type(self).__name__} has no attribute {attr!r} that a mutable decides; {known}"
            )
        return name


_HELD = frozenset(name for name, held in vars(nn.Module()).items() if isinstance(held, dict | set))


class _Masked:
    """A mutable of a class of the user's, known by its mask."""

    def __init__(self, mutable: BaseMutable[Any, Any]) -> None:
        self.mutable = mutable

    @property
    def num_channels(self) -> int:
        return length_of(self.mutable)

    def active(self) -> Any:
        return active_of(self.mutable)


def _channel(mutable: Any) -> Any:
    return mutable if hasattr(mutable, "num_channels") and hasattr(mutable, "active") else _Masked(mutable)
