"""The documented methods of DMCPChannelMutator, with what is documented wrong put right."""

import copy
import random
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutorch import CostTable, export
from mutorch.channels import DMCPChannelUnit
from mutorch.errors import ChoiceError, ConfigError
from mutorch.mutators import DMCPChannelMutator, MarkovWidths, group_widths
from mutorch.ops import DMCPBatchNorm2d
from mutorch.registry import MODELS
from mutorch.search import expected_cost
from mutorch.training import markov_arch_step, markov_step

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
PARSE = {"type": "ChannelAnalyzer", "demo_input": (1, 3, 8, 8)}


class Net(nn.Module):
    """Two units with groups, one that is too small for them, and a norm over a concatenation."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.norm1 = nn.Conv2d(3, 40, 3, padding=1), nn.BatchNorm2d(40)
        self.two, self.norm2 = nn.Conv2d(40, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.small, self.norm3 = nn.Conv2d(40, 8, 1), nn.BatchNorm2d(8)
        self.both = nn.BatchNorm2d(32)
        self.last = nn.Conv2d(32, 5, 1)

    def forward(self, x):
        x = self.norm1(self.one(x)).relu()
        x = torch.cat([self.norm2(self.two(x)), self.norm3(self.small(x))], 1)
        return self.last(self.both(x).relu()).mean((2, 3))


ONE, TWO, SMALL = "one_(0, 40)_40", "two_(0, 24)_24", "small_(0, 8)_8"


def prepared(values=None, **options):
    model = Net().eval()
    mutator = DMCPChannelMutator(parse_cfg=PARSE, **options)
    mutator.prepare_from_supernet(model)
    if values is not None:
        for parameter in mutator.arch_params.values():
            parameter.data = values * torch.arange(1.0, len(parameter) + 1) / len(parameter)
    return model, mutator


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(64, (3, 18, 10)), (32, (1, 18, 14)), (24, (1, 18, 6)), (96, (4, 18, 24)), (144, (7, 18, 18)), (256, (12, 18, 40)),
     (1280, (64, 18, 128)), (19, (0, 18, 19))],
)  # fmt: skip
def test_channels_are_divided_as_documented(channels, groups):
    assert group_widths(channels) == groups


def test_every_unit_that_is_large_enough_has_a_parameter_of_zeros():
    _, mutator = prepared()
    assert {name: parameter.tolist() for name, parameter in mutator.arch_params.items()} == {
        "0": [0.0] * 18, "1": [0.0] * 18}  # fmt: skip
    assert mutator.markov.names == (ONE, TWO)
    assert mutator.max_choices == {ONE: 40, TWO: 24, SMALL: 8}
    assert mutator.min_choices == {ONE: 4, TWO: 6, SMALL: 8}
    assert mutator.space[ONE].choices == tuple(range(4, 41, 2))


def test_shares_are_an_argument():
    _, mutator = prepared(pruning_cfg=(0.5, 1, 0.25))
    assert mutator.space[ONE].choices == (20, 30, 40)
    assert mutator.space[SMALL].choices == (4, 6, 8)


def test_direct_samples_stop_at_the_first_group_that_goes():
    _, mutator = prepared()
    mutator.arch_params["0"].data[:] = 0.0
    mutator.arch_params["0"].data[3] = 0.693147  # the fourth group goes every second time, the sixth always
    mutator.arch_params["0"].data[5] = 100.0
    found = Counter(mutator.sample_choices("direct", rng=seed)[ONE] for seed in range(400))
    assert set(found) == {4 + 2 * 3, 4 + 2 * 5}
    assert 150 < found[10] < 250


def test_samples_of_a_trained_mutator_have_the_expected_cost():
    _, mutator = prepared(0.2)
    table = CostTable.from_model(mutator, X[:1])
    expected = float(expected_cost(mutator, table, markov=mutator.markov).detach()) * table(table.largest()).macs
    rng = random.Random(0)
    codes = [mutator.space.encode(mutator.sample_choices("direct", rng=rng)) for _ in range(10_000)]
    costs = table.evaluate(np.array(codes), "macs").astype(float)
    assert abs(expected - costs.mean()) < 3 * costs.std() / 100
    assert expected == pytest.approx(costs.mean(), rel=0.005)


def test_random_samples_take_every_width_alike():
    _, mutator = prepared(5.0)
    widths = [mutator.sample_choices("random", rng=seed)[ONE] for seed in range(300)]
    assert set(widths) == set(range(4, 41, 2))


def test_arch_random_draws_by_probabilities_once_there_are_some():
    _, mutator = prepared()
    assert (
        mutator.sample_choices("arch_random", rng=1) == mutator.sample_choices("random", rng=1) != mutator.max_choices
    )
    for parameter in mutator.arch_params.values():
        parameter.data.fill_(0.1)
    assert mutator.sample_choices("arch_random", rng=1) == mutator.sample_choices("direct", rng=1)


def test_expected_channels_are_a_tensor_with_a_gradient_and_the_net_has_the_nearest_width():
    model, mutator = prepared(0.2)
    mutator.sample_subnet("expected")
    for unit in mutator.mutable_units[:2]:
        size, _, least = unit.groups
        parameter = mutator.markov[unit.name]
        expected = least + size * torch.exp(-parameter).cumprod(0).sum()
        found = unit.mutable_channel.activated_tensor_channels
        assert torch.allclose(found, expected)
        assert torch.autograd.grad(found, parameter)[0].lt(0).all()
        assert abs(float(found.detach()) - unit.current_choice) <= size / 2
        assert unit.current_choice < unit.num_channels
    assert export(model).one.out_channels == mutator.units[0].current_choice


@pytest.mark.parametrize("mode", ["max", "min", "random", "direct"])
def test_other_modes_tell_the_number_of_channels_too(mode):
    model, mutator = prepared(0.2)
    mutator.sample_subnet(mode, rng=0)
    assert mutator.current_choices == mutator.sample_choices(mode, rng=0)
    for unit in mutator.mutable_units:
        assert float(unit.mutable_channel.activated_tensor_channels) == unit.mutable_channel.activated_channels
    with torch.no_grad():
        assert torch.equal(export(model)(X), model(X))


def marginals(mutator, unit):
    size, _, least = mutator.name2unit[unit].groups
    return torch.cat([torch.ones(least), mutator.markov.kept(unit).detach().repeat_interleave(size)])


def test_norms_scale_channels_by_their_probability_while_the_architecture_is_trained():
    model, mutator = prepared(0.2)
    mutator.sample_subnet("max", arch_train=True)
    outputs = {}
    for path in ("norm1", "both"):
        model.get_submodule(path).register_forward_hook(lambda _m, i, o, path=path: outputs.update({path: (i[0], o)}))
    model(X)
    plain = nn.BatchNorm2d(40).eval()
    given, found = outputs["norm1"]
    assert torch.allclose(found, plain(given) * marginals(mutator, ONE).view(1, -1, 1, 1), atol=1e-5)
    given, found = outputs["both"]
    scale = torch.cat([marginals(mutator, TWO), torch.ones(8)])
    assert torch.allclose(found, nn.BatchNorm2d(32).eval()(given) * scale.view(1, -1, 1, 1), atol=1e-5)
    narrow = {ONE: 10, TWO: 8, SMALL: 8}
    mutator.set_choices(narrow)
    model(X)
    given, found = outputs["both"]
    scale = torch.cat([marginals(mutator, TWO)[:8], torch.ones(8)])
    assert torch.allclose(found, nn.BatchNorm2d(16).eval()(given) * scale.view(1, -1, 1, 1), atol=1e-5)


def test_scaling_gives_gradients_to_every_parameter_and_is_turned_off_again():
    model, mutator = prepared(0.2)
    mutator.sample_subnet("max", arch_train=True)
    model(X).square().sum().backward()
    assert all(bool(parameter.grad.any()) for parameter in mutator.arch_parameters())
    mutator.sample_subnet("max")
    assert torch.equal(model(X), Net().eval()(X))
    assert all(norm.arch_param is None for norm in model.modules() if isinstance(norm, DMCPBatchNorm2d))


def test_a_model_that_trains_its_architecture_copies_and_exports():
    model, mutator = prepared(0.2)
    mutator.sample_subnet("max", arch_train=True)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(X), model(X))
    assert {type(module) for module in export(model).modules()} == {type(module) for module in Net().modules()}


def test_the_steps_of_the_library_work_on_it():
    model, mutator = prepared(0.2)
    labels = torch.tensor([0, 1])

    def loss_fn(net):
        return F.cross_entropy(net(X), labels)

    markov_step(model, mutator, loss_fn, markov=mutator.markov, seed=0, step=0)
    markov_arch_step(mutator, mutator.markov, loss_fn)
    assert model.one._parameters["weight"].grad.any()
    assert all(bool(parameter.grad.any()) for parameter in mutator.arch_parameters())


def test_its_state_comes_back():
    _, mutator = prepared(0.2)
    mutator.sample_subnet("direct", rng=0)
    _, other = prepared()
    other.load_state_dict(mutator.state_dict())
    assert other.current_choices == mutator.current_choices
    assert torch.equal(other.probabilities()[ONE], mutator.probabilities()[ONE])
    other.prepare_arch_params()
    assert not other.markov.is_learned


def test_configs_build_it():
    config = {"type": "DMCPChannelMutator", "parse_cfg": PARSE, "pruning_cfg": (0.5, 1.0, 0.5)}
    mutator = MODELS.build(config)
    mutator.prepare_from_supernet(Net())
    assert mutator.space[ONE].choices == (20, 40)
    unit = DMCPChannelUnit(40, choice_mode="ratio")
    unit.set_groups(10, 2, 20)
    assert unit.choices == [0.5, 0.75, 1.0]


def test_widths_spelled_as_ratios_have_probabilities_too():
    config = {"type": "DMCPChannelUnit", "default_args": {"choice_mode": "ratio"}}
    _, mutator = prepared(0.1, channel_unit_cfg=config)
    assert mutator.markov.counts[ONE] == tuple(range(4, 41, 2))
    assert 0.1 <= mutator.sample_choices("direct", rng=0)[ONE] <= 1.0
    mutator.sample_subnet("expected")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: DMCPChannelMutator(pruning_cfg=(0.1, 2, 0.1)), ChoiceError, "largest share <= 1"),
        (lambda: DMCPChannelMutator(pruning_cfg=(0.1, 1)), ChoiceError, "pruning_cfg is \\(smallest share"),
        (lambda: DMCPChannelMutator("L1MutableChannelUnit"), ConfigError, "has DMCPChannelUnits, got L1Mutable"),
        (lambda: DMCPChannelMutator().markov, AttributeError, "call prepare_from_supernet"),
        (lambda: prepared()[1].sample_subnet("directt"), ChoiceError, "no kind 'directt'; did you mean 'direct'"),
        (lambda: DMCPChannelUnit(10).set_groups(2, 3, 5), ChoiceError, "has 10 channels, got 3 groups of 2 after 5"),
    ],
)
def test_mistakes_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_probabilities_need_a_space_of_widths():
    _, mutator = prepared()
    assert isinstance(mutator.markov, MarkovWidths)
