import pytest
import torch
from torch import nn

from mutorch.errors import ConfigError
from mutorch.models import chain_net
from mutorch.mutables import DiffMutableOP
from mutorch.mutators import Mutator
from mutorch.training import CollapseMeter, CollapseWarning


def search(*preferred):
    net = chain_net(mutable=DiffMutableOP)
    mutator = Mutator(net)
    mutator.prepare_arch_params()
    prefer(mutator, *preferred)
    return mutator


def prefer(mutator, *numbers):
    with torch.no_grad():
        for parameter, number in zip(mutator.arch_parameters(), numbers, strict=True):
            parameter.copy_(4.0 * nn.functional.one_hot(torch.tensor(number), 4))


def test_an_engineered_collapse_warns_once():
    meter = CollapseMeter(search(0, 1, 0, 3))
    with pytest.warns(CollapseWarning, match=r"3 of 4 decisions prefer .* without weights \(block0, block1, block2\)"):
        reading = meter.read()
    assert reading.skip_share == 0.75
    meter.read()


def test_a_healthy_search_does_not_warn():
    reading = CollapseMeter(search(3, 2, 0, 1)).read()
    assert reading.skip_share == 0.5
    assert 0 < reading.entropy < 1
    assert reading.architecture == {"block0": "conv3x3", "block1": "separable", "block2": "skip", "block3": "maxpool"}


def test_what_is_undecided_does_not_warn():
    mutator = search(0, 0, 0, 0)
    with torch.no_grad():
        for parameter in mutator.arch_parameters():
            parameter.mul_(0.01)
    assert CollapseMeter(mutator).read().skip_share == 1


def test_too_many_skips_in_a_row_stop_the_search():
    mutator = search(0, 0, 3, 3)
    meter = CollapseMeter(mutator, max_skips=1, patience=2)
    assert not meter.read().should_stop
    assert meter.read().should_stop
    prefer(mutator, 3, 0, 3, 3)
    assert not meter.read().should_stop


def test_readings_count_how_long_nothing_changed():
    mutator = search(3, 3, 3, 3)
    meter = CollapseMeter(mutator)
    assert [meter.read().unchanged for _ in range(3)] == [0, 1, 2]
    prefer(mutator, 3, 3, 3, 2)
    assert meter.read().unchanged == 0


def test_no_patience_is_refused():
    with pytest.raises(ConfigError, match="patience must be at least 1, got 0"):
        CollapseMeter(search(3, 3, 3, 3), patience=0)


def test_a_meter_goes_on_where_its_state_was_taken():
    mutator = search(0, 0, 3, 3)
    meter, again = (CollapseMeter(mutator, max_skips=1, patience=2) for _ in range(2))
    meter.read()
    again.load_state_dict(meter.state_dict())
    assert again.read() == meter.read()
    assert again.state_dict()["exceeded"] == 2
