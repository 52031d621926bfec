"""Channels that are kept or removed together, as one decision."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import nn

from mutorch.errors import ChoiceError
from mutorch.mutables import BaseMutable, BaseMutableChannel, DumpChosen, MutableChannelContainer
from mutorch.ops import DYNAMIC_OPS, DynamicOp
from mutorch.ops.extent import Extent
from mutorch.space import RandomSource, as_random

from .channel import Channel
from .channel_unit import ChannelUnit
from .prepare import Table, convert_, register, source_of


class MutableChannelUnit(ChannelUnit, BaseMutable[Any, Any]):
    """Channels of several modules that must be kept or removed together (seed 001).

    A unit holds a channel mutable, which says which channels are active, and is the one that decides; `name` is that of
    the decision.

    Args:
        num_channels: how many channels there are.
        kwargs: `alias` and `init_cfg`; see `BaseMutable`.

    Attributes:
        extents: the dimensions that follow it.
        special_ops: static class to the dynamic op that its modules become where that is not the one of `DYNAMIC_OPS`.
        unit_predefined: whether the modules were dynamic, and followed its mutable, before there was a unit.
    """

    special_ops: ClassVar[Table] = {}

    def __init__(self, num_channels: int, **kwargs: Any) -> None:
        super().__init__(num_channels, **kwargs)
        self.extents: list[Extent] = []
        self.unit_predefined = False

    @property
    def mutable_prefix(self) -> str:
        """`'channel'`, the kind of decision."""
        return "channel"

    @property
    @abstractmethod
    def mutable_channel(self) -> BaseMutableChannel:
        """Which channels are active."""

    # ---- where from --------------------------------------------------------------------------------------------------

    @classmethod
    def init_from_cfg(cls, model: nn.Module | None, config: Mapping[str, Any]) -> Self:
        """A unit from what `config_template` gives, with its choice if that is in it; see `ChannelUnit`."""
        unit = super().init_from_cfg(model, config)
        if "choice" in config:
            unit.current_choice = config["choice"]
        return unit

    @classmethod
    def init_from_mutable_channel(cls, mutable_channel: BaseMutableChannel) -> Self:
        """A unit around a channel mutable that exists already."""
        unit = cls(mutable_channel.num_channels)
        unit._hold(mutable_channel)
        return unit

    def _hold(self, mutable_channel: BaseMutableChannel) -> None:
        self._mutable_channel: Any = mutable_channel

    @classmethod
    def init_from_predefined_model(cls, model: nn.Module) -> list[Self]:
        """A unit for each channel mutable that the dynamic ops of a model follow, alone or in containers.

        Errors:
            SpaceError: channels that are derived from several mutables.
        """
        units: dict[int, Self] = {}
        for path, op in model.named_modules():
            for attr in ("out_channels", "in_channels") if isinstance(op, DynamicOp) else ():
                for index, member in _members(op, attr):
                    mutable = source_of(member)
                    if id(mutable) not in units:
                        units[id(mutable)] = cls.init_from_mutable_channel(mutable)
                        units[id(mutable)].unit_predefined = True
                    is_output = attr == "out_channels"
                    units[id(mutable)]._add(
                        Channel(path, op, index, is_output_channel=is_output),
                        "output_related" if is_output else "input_related",
                    )
        for unit in units.values():
            unit.extents = register(unit.channels, unit.mutable_channel)
        return list(units.values())

    # ---- the model ---------------------------------------------------------------------------------------------------

    def prepare_for_pruning(self, model: nn.Module) -> None:
        """Make the modules of the unit's channels dynamic, in place, and let them follow the unit. Weights stay.

        Errors:
            UnsupportedChannelError: channels that the unit cannot decide.
            ChoiceError: channels that another unit decides.
        """
        convert_(model, self.channels, {**DYNAMIC_OPS, **self.special_ops})
        self.extents = register(self.channels, self.mutable_channel)

    @property
    def is_mutable(self) -> bool:
        """Whether its channels can be removed: both sides are there, are dynamic, and nothing else has them."""
        return all(
            any(isinstance(channel.module, DynamicOp) for channel in side) and all(one.is_mutable for one in side)
            for side in (self.output_related, self.input_related)
        )

    # ---- choices -----------------------------------------------------------------------------------------------------

    @property
    def current_choice(self) -> Any:
        """The choice of the channel mutable."""
        return self.mutable_channel.current_choice

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        self.mutable_channel.current_choice = choice
        self.refresh()

    def assign(self, choice: Any) -> None:
        self.mutable_channel.assign(choice)
        if self.extents:
            self.refresh()

    def sample_choice(self, rng: RandomSource | None = None) -> Any:
        """A choice, uniformly.

        Args:
            rng: a seed or a `random.Random`; `None` draws from a new generator, so the result cannot be repeated.
        """
        return as_random(rng).choice(list(self.choices))

    def refresh(self) -> None:
        """Bring the masks that compiled graphs read up to date."""
        for extent in self.extents:
            extent.refresh()

    def fix_chosen(self, chosen: Any = None) -> None:
        """Make `chosen`, or the current choice, final.

        Errors:
            FixedError: fixed before.
            ChoiceError: not a choice; nothing is changed.
        """
        self._check_not_fixed()
        if chosen is not None and not self.allows(chosen):
            raise ChoiceError(f"unit {self.name!r} has no choice {chosen!r}; choices: {list(self.choices)}")
        if chosen is not None:
            self.current_choice = chosen
        self.mutable_channel.fix_chosen()
        self.is_fixed = True
        self.refresh()

    def dump_chosen(self) -> DumpChosen:
        """The current choice, with the number of all channels as meta."""
        return self.mutable_channel.dump_chosen()

    def config_template(self, with_init_args: bool = False, with_channels: bool = False) -> dict[str, Any]:
        """The unit as plain data with its choice, which `init_from_cfg` takes back."""
        return {**super().config_template(with_init_args, with_channels), "choice": self.current_choice}


def _members(op: DynamicOp, attr: str) -> list[tuple[tuple[int, int], Any]]:
    mutable = op.get_mutable_attr(attr) if op.supports(attr) else None
    if mutable is None:
        return []
    if isinstance(mutable, MutableChannelContainer):
        return list(mutable.registered.items())
    return [((0, op.whole_size(attr)), mutable)]
