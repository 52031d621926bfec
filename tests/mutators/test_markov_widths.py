"""Probabilities of widths as a Markov chain (DMCP, arXiv 2005.03354)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutorch import Budget, CostTable, Mutator, export, searchable, widths
from mutorch.errors import ChoiceError, ConfigError, InfeasibleBudgetError, LoadError, SpaceError, StateError
from mutorch.mutables import OneShotMutableOP
from mutorch.mutators import MarkovWidths
from mutorch.ops import scaled_columns
from mutorch.search import cost_loss, expected_cost, expected_widths, sample_widths
from mutorch.space import Ref, random_at
from mutorch.training import markov_arch_step, markov_step, recalibrate_

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])


class Residual(nn.Module):
    """A stem, an inverted residual with a depthwise convolution, a grouped convolution, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.block = nn.Sequential(
            nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.wide, self.head = nn.Conv2d(8, 12, 3), nn.Linear(12, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(self.wide((x + self.block(x)).relu()).relu().mean((2, 3)))


def build(values=None, seed=0):
    torch.manual_seed(seed)
    net = searchable(Residual(), X, rules=[widths(counts=range(2, 17, 2), divisor=1)])
    mutator = Mutator(net)
    markov = MarkovWidths(mutator)
    if values is not None:
        generator = torch.Generator().manual_seed(values)
        for parameter in markov.parameters.values():
            parameter.data = 0.4 * torch.rand(len(parameter), generator=generator)
    return net, mutator, markov


def loss_fn(model):
    return F.cross_entropy(model(X), LABELS)


@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("values", [0, 1])
def test_the_expected_cost_is_the_mean_of_ten_thousand_samples(metric, values):
    _, mutator, markov = build(values)
    table = CostTable.from_model(mutator, X[:1])
    expected = (
        float(expected_cost(mutator, table, metric, markov=markov).detach()) * table(table.largest(metric))[metric]
    )
    drawn = [mutator.space.encode({**mutator.space.max, **markov.sample(random_at(7, n))}) for n in range(10_000)]
    costs = table.evaluate(np.array(drawn), metric).astype(float)
    assert abs(expected - costs.mean()) < 3 * costs.std() / 100
    assert expected == pytest.approx(costs.mean(), rel=0.005)


def test_the_expected_cost_is_the_mean_over_all_architectures_exactly():
    net = searchable(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 2, 1)), X, rules=[
        widths(counts=range(1, 7), divisor=1)])  # fmt: skip
    mutator = Mutator(net)
    markov, table = MarkovWidths(mutator), CostTable.from_model(mutator, X[:1])
    for parameter in markov.parameters.values():
        parameter.data.fill_(0.3)
    total = sum(table(a).macs * float(markov.log_probability(a).detach().exp()) for a in mutator.space.grid())
    assert float(expected_cost(mutator, table, markov=markov).detach()) * table(table.largest()).macs == pytest.approx(
        total
    )


def test_probabilities_are_those_of_a_chain_and_sum_to_one():
    _, _, markov = build(0)
    for name, probabilities in markov.probabilities().items():
        going_on = torch.exp(-markov[name].detach().double())
        for number, p in enumerate(probabilities.tolist()):
            reached = float(going_on[:number].prod())
            stays = 1 - float(going_on[number]) if number < len(going_on) else 1.0
            assert p == pytest.approx(reached * stays, abs=1e-6)
        assert float(probabilities.sum().detach()) == pytest.approx(1)
        mean = sum(p * count for p, count in zip(probabilities.tolist(), markov.counts[name], strict=True))
        assert float(markov.expected()[name].detach()) == pytest.approx(mean, rel=1e-5)


def test_in_the_beginning_every_channel_is_kept():
    _, mutator, markov = build()
    assert not markov.is_learned
    assert markov.sample(0) == markov.nearest() == {name: mutator.space.max[name] for name in markov.names}


def test_samples_come_from_their_seed():
    _, mutator, markov = build(0)
    assert markov.sample(3) == markov.sample(3)
    assert len({str(markov.sample(seed)) for seed in range(20)}) > 10
    for seed in range(5):
        mutator.set_choices({**mutator.space.max, **markov.sample(seed)})


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_reading_scaled_channels_equals_scaling_them_where_they_are_made(mode):
    net, _, markov = build(0)
    getattr(net, mode)()
    scales = [
        markov.scales()[id(unit.mutable_channel)]
        for unit in (members[0] for members in Mutator(net).search_groups.values())
    ]
    by_size = {len(scale): scale for scale in scales}

    def scaled(path, size):
        return net.get_submodule(path).register_forward_hook(
            lambda _m, _i, out: out * by_size[size].view(1, -1, *[1] * (out.dim() - 2))
        )

    with torch.no_grad(), scaled_columns(net, markov.scales()):
        found = net(X)
    handles = [scaled("block.5", 16), scaled("wide", 12)]  # once on each path, after the depthwise convolution
    first = by_size[8]
    columns = [net.block[0].weight, net.wide.weight]
    with torch.no_grad():
        for weight in columns:
            weight.mul_(first.view(1, -1, 1, 1))
        expected = net(X)
    assert len(handles) == 2
    assert torch.allclose(found, expected, atol=1e-5)


def test_scaling_leaves_no_trace():
    net, _, markov = build(0)
    before, parameters = net(X), list(net.parameters())
    with scaled_columns(net, markov.scales()):
        assert not torch.allclose(net(X), before)
    assert [id(p) for p in net.parameters()] == [id(p) for p in parameters]
    with pytest.raises(RuntimeError, match="inside"), scaled_columns(net, markov.scales()):
        raise RuntimeError("inside")
    assert all(isinstance(p, nn.Parameter) for m in net.modules() for p in m._parameters.values() if p is not None)


def test_the_step_of_the_architecture_leaves_weights_and_statistics_alone():
    net, mutator, markov = build(0)
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    mutator.set_choices(mutator.space.min)
    markov_arch_step(mutator, markov, loss_fn)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())
    assert all(bool(parameter.grad.any()) for parameter in markov.parameters.values())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in net.named_buffers())
    assert mutator.current_choices == mutator.space.min


def test_normalising_does_not_hide_what_a_unit_is_worth():
    net, mutator, markov = build(0)
    markov_arch_step(mutator, markov, loss_fn)
    unit = mutator.search_groups["block.0"][0].mutable_channel
    scale = torch.ones(16, requires_grad=True)  # all channels alike, before a convolution that a norm follows
    with mutator.at(mutator.space.max), scaled_columns(net.train(), {id(unit): scale}):
        (gradient,) = torch.autograd.grad(loss_fn(net), [scale])
    assert abs(float(gradient.sum())) < 1e-5 * float(gradient.abs().sum()) + 1e-5
    assert float(markov["block.0"].grad.abs().sum()) > 1e-3
    assert net.training


def test_the_gradient_of_the_probabilities_is_the_numerical_one():
    net, mutator, markov = build(0)
    net.double().eval()
    recalibrate_(net, [X.double()])
    for parameter in markov.parameters.values():
        parameter.data = parameter.data.double()
    table = CostTable.from_model(mutator, X[:1].double())

    def cost():
        return cost_loss(expected_cost(mutator, table, markov=markov), 0.4, "l2")

    def total():
        with torch.no_grad(), mutator.at(mutator.space.max), scaled_columns(net, markov.scales()):
            return F.cross_entropy(net(X.double()), LABELS) + cost()

    markov_arch_step(mutator, markov, lambda m: F.cross_entropy(m(X.double()), LABELS), cost=cost)
    for name in markov.names:
        for place in (0, len(markov[name]) - 1):
            sides = []
            for sign in (1, -1):
                markov[name].data[place] += sign * 1e-5
                sides.append(float(total()))
                markov[name].data[place] -= sign * 1e-5
            assert float(markov[name].grad[place]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-3, abs=1e-7)


def test_the_expected_cost_goes_to_its_target_and_samples_are_within_it():
    _, mutator, markov = build()
    table = CostTable.from_model(mutator, X[:1])
    largest = table(table.largest()).macs
    optimizer = torch.optim.SGD(markov.parameters.values(), lr=0.02)
    for _ in range(200):
        markov_arch_step(
            mutator, markov, loss_fn, cost=lambda: cost_loss(expected_cost(mutator, table, markov=markov), 0.5)
        )
        optimizer.step()
        optimizer.zero_grad()
    assert 0.42 < float(expected_cost(mutator, table, markov=markov).detach()) < 0.53
    budget = Budget.parse({"macs": ("45%", "50%")}, table)
    found = sample_widths(mutator, markov, table, budget, count=5)
    assert len({str(one) for one in found}) == len(found) == 5
    assert all(0.45 * largest <= table(one).macs <= 0.5 * largest for one in found)
    assert sample_widths(mutator, markov, table, budget, count=5) == found


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_expected_widths_fill_the_budget_and_are_as_wide_as_expected_in_comparison(share):
    _, mutator, markov = build(1)
    table = CostTable.from_model(mutator, X[:1])
    budget = Budget.parse({"macs": f"{share:.0%}"}, table)
    found = expected_widths(mutator, markov, table, budget)
    costs, largest = table(found), table(table.largest())
    assert budget.allows(costs)
    assert costs.macs > (share - 0.15) * largest.macs
    for name in markov.names:
        place = markov.choices[name].index(found[name])
        if place + 1 < len(markov.choices[name]):
            assert not budget.allows(table({**found, name: markov.choices[name][place + 1]}))


def test_a_budget_that_no_sample_is_within_is_an_error():
    _, mutator, markov = build()
    table = CostTable.from_model(mutator, X[:1])
    with pytest.raises(
        InfeasibleBudgetError, match="none of 100 architectures drawn .* train the probabilities longer"
    ):
        sample_widths(mutator, markov, table, Budget.parse({"macs": "50%"}, table), draws=100)


def test_negative_parameters_come_back():
    _, mutator, markov = build()
    markov["stem"].data.fill_(-3.0)
    table = CostTable.from_model(mutator, X[:1])
    markov_arch_step(
        mutator, markov, loss_fn, cost=lambda: cost_loss(expected_cost(mutator, table, markov=markov), 0.3)
    )
    assert not bool(markov["stem"].detach().any())
    assert bool(markov["stem"].grad.any())


def test_a_weight_step_is_the_sum_of_its_three_subnets():
    net, mutator, markov = build(0)
    net.eval()
    markov_step(net, mutator, loss_fn, markov=markov, seed=3, step=5)
    found = {name: p.grad.clone() for name, p in net.named_parameters()}
    net.zero_grad()
    drawn = markov.sample(random_at(3, "widths", 5))
    with mutator.at(mutator.space.max):
        wanted = net(X).detach().log_softmax(1)
        loss_fn(net).backward()
    for architecture in (mutator.space.min, {**mutator.space.max, **drawn}):
        with mutator.at(architecture):
            out = net(X)
            apart = F.kl_div(out.log_softmax(1), wanted, log_target=True, reduction="batchmean")
            (F.cross_entropy(out, LABELS) + apart).backward()
    for name, parameter in net.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-5), name


def test_exported_samples_equal_the_searchable_model():
    net, mutator, markov = build(0)
    net.eval()
    for seed in range(5):
        architecture = {**mutator.space.max, **markov.sample(seed)}
        with torch.no_grad(), mutator.at(architecture):
            assert torch.equal(export(net, architecture)(X), net(X))


def test_parameters_are_saved_and_read():
    _, _, markov = build(0)
    _, _, other = build()
    other.load_state_dict(markov.state_dict())
    assert other.sample(4) == markov.sample(4)
    net = searchable(nn.Sequential(nn.Linear(2, 32), nn.Linear(32, 4)), torch.zeros(1, 2))
    with pytest.raises(LoadError, match="parameter of unit '0' has shape \\(3,\\) here and None"):
        MarkovWidths(Mutator(net)).load_state_dict(markov.state_dict())


def test_what_cannot_be_learned_is_an_error():
    with pytest.raises(SpaceError, match="no decision about a number of channels"):
        MarkovWidths(Mutator(OneShotMutableOP({"a": nn.ReLU(), "b": nn.GELU()})))
    _, mutator, markov = build()
    with pytest.raises(SpaceError, match="no probabilities of widths; did you mean 'stem'"):
        markov["stm"]
    with pytest.raises(ChoiceError, match="unit 'stem' has no choice 3"):
        markov.log_probability({**mutator.space.max, "stem": 3})
    with pytest.raises(ConfigError, match="does not call the model .* give distill=False"):
        markov_step(
            mutator.model, mutator, lambda m: torch.zeros((), requires_grad=True), markov=markov, seed=0, step=0
        )
    mutator.require(Ref("stem") <= 6)
    with pytest.raises(SpaceError, match="would break the 1 constraints"):
        MarkovWidths(mutator)


class Similarity(nn.Module):
    """Channels that only their products with each other read."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(3, 16), nn.Linear(3, 16)

    def forward(self, x):
        return self.one(x) @ self.other(x).mT


def test_a_unit_that_no_layer_reads_is_named():
    mutator = Mutator(searchable(Similarity(), torch.randn(2, 5, 3)))
    with pytest.raises(StateError, match="reads the channels of unit 'one' alone"):
        markov_arch_step(mutator, MarkovWidths(mutator), lambda m: m(torch.randn(2, 5, 3)).sum())


@pytest.mark.parametrize(
    ("kind", "value", "slope"),
    [("l1", 20, 1), ("l2", 400, 40), ("inverted_log_l1", 2.9957, 0.05), ("log_l1", 3.2189, 0.04)],
)
def test_cost_losses_above_the_target(kind, value, slope):
    expected = torch.tensor(120.0, requires_grad=True)
    loss = cost_loss(expected, 100.0, kind)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(value, rel=1e-4)
    assert float(expected.grad) == pytest.approx(slope, rel=1e-4)


def test_the_log_loss_is_flat_just_below_the_target_and_rises_back_from_further_below():
    slopes = []
    for value in (97.0, 90.0):
        expected = torch.tensor(value, requires_grad=True)
        cost_loss(expected, 100.0).backward()
        slopes.append(float(expected.grad))
    assert slopes[0] == 0
    assert slopes[1] == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "log_l2"}, "no kind 'log_l2' of a cost loss; did you mean 'log_l1'"),
        ({"target": 0}, "must be positive, got 0"),
        ({"slack": 1.0}, "share above 0 and below 1, got 1.0"),
    ],
)
def test_mistakes_in_a_cost_loss_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        cost_loss(torch.tensor(1.0), **{"target": 1.0, **options})
