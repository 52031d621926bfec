import pytest
import torch
from torch import nn

from mutorch.mutables import (
    CLOCK,
    DerivedMutable,
    MutableChannelContainer,
    MutableValue,
    OneShotMutableChannel,
    OneShotMutableOP,
    OneShotMutableValue,
    SequentialMutableChannel,
    SimpleMutableChannel,
    tick,
)


def op():
    return OneShotMutableOP({"a": nn.ReLU(), "b": nn.GELU()})


CHANGES = {
    "sequential": (lambda: SequentialMutableChannel(4), 2),
    "ratio": (lambda: SequentialMutableChannel(4, "ratio"), 0.5),
    "one shot": (lambda: OneShotMutableChannel(4, [2, 4]), 2),
    "simple": (lambda: SimpleMutableChannel(4), torch.tensor([0, 1, 1, 0])),
    "positions": (lambda: SimpleMutableChannel(4), [1, 2]),
    "value": (lambda: MutableValue([4, 2]), 2),
    "one shot value": (lambda: OneShotMutableValue([2, 4]), 2),
    "module": (op, "b"),
}


def write(mutable, choice):
    mutable.current_choice = choice


@pytest.mark.parametrize("how", [write, lambda m, c: m.assign(c), lambda m, c: m.fix_chosen(c)])
@pytest.mark.parametrize(("make", "choice"), CHANGES.values(), ids=CHANGES.keys())
def test_every_way_to_change_a_choice_moves_the_clock(make, choice, how):
    mutable = make()
    before = CLOCK.now
    how(mutable, choice)
    assert CLOCK.now > before


def test_fixing_to_the_current_choice_moves_the_clock():
    channels = SequentialMutableChannel(4)
    before = CLOCK.now
    channels.fix_chosen()
    assert CLOCK.now > before


def test_registering_in_a_container_moves_the_clock():
    container = MutableChannelContainer(4)
    before = CLOCK.now
    container.register_mutable(SequentialMutableChannel(4), 0, 4)
    assert CLOCK.now > before


def test_reading_leaves_the_clock():
    channels, container = SimpleMutableChannel(4), MutableChannelContainer(8)
    container.register_mutable(channels, 2, 6)
    joined = DerivedMutable.derive_concat_mutable([channels, channels * 2])
    before = CLOCK.now
    for mutable in (channels, container, joined):
        assert mutable.active_index().tolist() == list(range(mutable.prefix))
    assert CLOCK.now == before


def test_setting_the_same_number_of_channels_again_leaves_the_clock():
    channels = SequentialMutableChannel(4)
    before = CLOCK.now
    channels.assign(4)
    assert CLOCK.now == before
    tick()
    assert CLOCK.now == before + 1
