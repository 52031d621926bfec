"""Tables built from exported subnets on fake devices, whose milliseconds are computed from the layers that they are given."""

import numpy as np
import pytest
import torch
from torch import nn

from mutorch import CostTable, LatencyRunner, Mutator, OneShotMutableOP, export, latency_table, searchable, widths
from mutorch.cost import Budget
from mutorch.errors import BudgetError, ConfigError, CostError, MeasureError
from mutorch.subnet import SubnetLatency

X = torch.zeros(1, 4, 6, 6)


def conv(size):
    return nn.Conv2d(4, 4, size, padding=size // 2)


def nested_net():
    """Blocks, of which one holds further blocks."""
    inner = nn.Sequential(OneShotMutableOP({"conv3": conv(3), "conv1": conv(1)}), conv(5))
    outer = OneShotMutableOP({"inner": inner, "skip": nn.Identity()})
    blocks = [OneShotMutableOP({"conv3": conv(3), "conv5": conv(5), "skip": nn.Identity()}) for _ in range(3)]
    return nn.Sequential(conv(1), outer, *blocks)


def additive(model, inputs):
    """A millisecond for each call, and some for each layer by its kernel."""
    return 1.0 + sum(0.3 * layer.kernel_size[0] for layer in model.modules() if isinstance(layer, nn.Conv2d))


def exploding(model, inputs):
    return 1.5 ** sum(layer.kernel_size[0] for layer in model.modules() if isinstance(layer, nn.Conv2d))


def by_macs(model, inputs):
    """A device that is nothing but multiply-adds."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return 1.0 + 1e-3 * sum(layer.weight.numel() * inputs.shape[0] for layer in layers)


@pytest.mark.parametrize("num_samples", [None, 30])
def test_a_device_that_adds_up_layers_is_predicted_exactly_for_every_exported_subnet(num_samples):
    net = nested_net()
    mutator = Mutator(net)
    table = latency_table(net, mutator, X, runner=LatencyRunner(additive), num_samples=num_samples)
    for architecture in mutator.space.grid():
        subnet = export(net, architecture, mutator=mutator)
        assert table(architecture) == pytest.approx(additive(subnet, X), abs=1e-8)
    assert table.accuracy.large_error < 1e-9
    assert mutator.space.names == Mutator(net).space.names


def test_a_table_says_how_it_was_measured():
    net = nested_net()
    table = latency_table(
        net, Mutator(net), X, runner=LatencyRunner(additive, device="board 1", batch=2), num_samples=20
    )
    assert table.measured_on == "additive, board 1, batch 2"
    assert "20 measurements" in str(table)


def test_of_a_small_space_each_subnet_is_measured_twice_unless_told_otherwise():
    net = nn.Sequential(OneShotMutableOP({"conv3": conv(3), "conv5": conv(5), "skip": nn.Identity()}))
    table = latency_table(net, Mutator(net), X, runner=LatencyRunner(additive))
    assert table.accuracy.num_measurements == 6
    assert table.accuracy.large_error < 1e-3


def test_a_device_that_slows_down_is_corrected():
    calls = []

    def tired(model, inputs):
        calls.append(model)
        return additive(model, inputs) * (1 + len(calls) // 900)  # the turns of one group take nine calls each

    net = nested_net()
    mutator = Mutator(net)
    table = latency_table(net, mutator, X, runner=LatencyRunner(tired, repeats=100), num_samples=32)
    ratios = [table(a) / additive(export(net, a, mutator=mutator), X) for a in mutator.space.grid()]
    assert len(calls) == 4 * 900
    assert max(ratios) / min(ratios) < 1.02


def test_a_device_where_layers_act_on_each_other_gives_a_table_that_no_budget_takes():
    net = nested_net()
    mutator = Mutator(net)
    table = latency_table(net, mutator, X, runner=LatencyRunner(exploding), num_samples=40)
    assert table.accuracy.large_error > 0.1
    counted = CostTable.from_model(mutator, X).with_metric("latency_ms", table)
    with pytest.raises(BudgetError, match="latency_ms cannot be bounded by its table"):
        Budget.parse({"latency_ms": "50%"}, counted)


def test_widths_need_few_measurements_where_counted_costs_help():
    model = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())))
    x = torch.zeros(1, 8, 6, 6)
    net = searchable(model, x, rules=[widths("*", ratios=[n / 8 for n in range(1, 9)], divisor=1)])
    mutator = Mutator(net)
    costs = CostTable.from_model(mutator, x)
    runner = LatencyRunner(by_macs)
    helped = latency_table(net, mutator, x, runner=runner, num_samples=40, costs=costs)
    assert helped.accuracy.large_error < 0.01
    fresh = [mutator.space.sample(1000 + number) for number in range(20)]
    measured = [one.median_ms for one in SubnetLatency(net, mutator, x, runner).measure(fresh)]
    assert [helped(architecture) for architecture in fresh] == pytest.approx(measured, rel=0.02)


def test_costs_of_another_space_are_refused():
    net, other = nested_net(), nn.Sequential(OneShotMutableOP({"a": conv(1), "b": conv(3)}))
    with pytest.raises(ConfigError, match="costs are of another space"):
        latency_table(net, Mutator(net), X, costs=CostTable.from_model(Mutator(other), X))


def test_too_few_measurements_are_refused_before_anything_is_measured():
    net = nested_net()
    runner = LatencyRunner(lambda model, inputs: pytest.fail("measured"))
    with pytest.raises(CostError, match="2 measurements do not see decision"):
        latency_table(net, Mutator(net), X, runner=runner, num_samples=2)


def test_a_device_that_measures_nothing_stops_it():
    net = nested_net()
    with pytest.raises(MeasureError, match="returned nothing"):
        latency_table(net, Mutator(net), X, runner=LatencyRunner(lambda model, inputs: None))


# ---- one architecture after the other --------------------------------------------------------------------------------


def test_an_architecture_is_measured_once_however_it_is_written():
    calls = []
    net = nested_net()
    mutator = Mutator(net)
    subnets = SubnetLatency(
        net, mutator, X, LatencyRunner(lambda model, inputs: calls.append(model) or additive(model, inputs))
    )
    first = subnets({**mutator.space.default, "1": "skip"})
    again = subnets({**mutator.space.default, "1": "skip", "1._candidates.inner.0": "conv1"})
    assert first is again
    assert len(calls) == 2  # with the subnet that all are compared with


def test_what_is_asked_to_be_measured_is_measured_anew_and_in_order():
    net = nested_net()
    mutator = Mutator(net)
    architectures = list(mutator.space.grid())[:20]
    found = SubnetLatency(net, mutator, X, LatencyRunner(additive)).measure(architectures)
    expected = [additive(export(net, architecture, mutator=mutator), X) for architecture in architectures]
    assert np.array([one.median_ms for one in found]).tolist() == expected
    assert SubnetLatency(net, mutator, X, LatencyRunner(additive)).measure([]) == []


def test_measuring_leaves_the_supernet_and_its_choices_alone():
    net = nested_net().train()
    mutator = Mutator(net)
    mutator.set_choices(mutator.max_choices)
    before = mutator.current_choices
    SubnetLatency(net, mutator, X, LatencyRunner(additive)).measure([mutator.space.sample(0)])
    assert mutator.current_choices == before
    assert net.training
