"""The table says what counting the exported model says, for every model that decides anything."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mutorch.cost import METRICS, CostTable, call, count
from mutorch.errors import ChoiceError, CostError, SpaceError
from mutorch.models import SearchableShuffleNetV2, chain_net
from mutorch.mutables import DumpChosen, MutableValue, OneShotMutableModule, OneShotMutableOP, OneShotMutableValue
from mutorch.mutators import Mutator
from mutorch.space import random_at
from mutorch.subnet import export


def op(alias=None, **candidates):
    return OneShotMutableOP(candidates, alias=alias)


def architectures(space, limit):
    if space.size <= limit:
        return list(space.grid())
    return [space.sample(random_at(0, "architecture", number)) for number in range(limit)]


def assert_table_is_exact(model, inputs, limit=25, **options):
    mutator = Mutator(model)
    table = CostTable.from_model(mutator, inputs, **options)
    for architecture in architectures(mutator.space, limit):
        subnet = export(model, architecture, mutator=mutator).eval()
        assert table(architecture) == count(subnet, inputs), architecture
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            call(subnet, inputs)
        assert table(architecture).flops == counter.get_total_flops()
        assert table(architecture).params == sum(parameter.numel() for parameter in subnet.parameters())
        saved = {id(t): t.numel() * t.element_size() for t in subnet.state_dict(keep_vars=True).values()}
        assert table(architecture).size_mb == sum(saved.values()) / 1e6
    return table


# ---- models with interacting decisions -------------------------------------------------------------------------------


class DepthAndKernels(nn.Module):
    """A depth that hides kernel sizes, after a resolution that everything depends on."""

    def __init__(self, value=OneShotMutableValue):
        super().__init__()
        self.resolution = value([4, 6, 8])
        self.depth = value([1, 2, 3])
        self.kernels = nn.ModuleList(value([1, 3]) for _ in range(3))
        self.weights = nn.ParameterList(torch.zeros(2, 2, 3, 3) for _ in range(3))
        self.head = op(linear=nn.Linear(2, 2), none=nn.Identity())

    def forward(self, x):
        x = functional.interpolate(x, size=(self.resolution.current_choice,) * 2)
        for kernel, weight in list(zip(self.kernels, self.weights, strict=True))[: self.depth.current_choice]:
            cut = slice(1, 2) if kernel.current_choice == 1 else slice(0, 3)
            x = functional.conv2d(x, weight[:, :, cut, cut], padding=kernel.current_choice // 2)
        return self.head(x.mean((2, 3)))


class Hidden(nn.Module):
    """Three switches, each of which only matters where the one before it is on."""

    def __init__(self):
        super().__init__()
        self.switches = nn.ModuleList(MutableValue(["off", "on"]) for _ in range(3))
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        for switch in self.switches:
            if switch.current_choice == "off":
                break
            x = self.layer(x)
        return x


class Derived(nn.Module):
    """A hidden width that is a ratio times a width, both decided."""

    def __init__(self):
        super().__init__()
        self.width = OneShotMutableValue([2, 4])
        self.ratio = OneShotMutableValue([1, 2, 3])
        self.hidden = self.width.derive_expand_mutable(self.ratio)
        self.weight = nn.Parameter(torch.zeros(12, 4))

    def forward(self, x):
        weight = self.weight[: self.hidden.current_choice, : self.width.current_choice]
        return functional.linear(x[:, : self.width.current_choice], weight)


class Shared(nn.Module):
    """Blocks used twice, on inputs of different sizes, and a candidate that is also a layer of the trunk."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv2d(2, 2, 3, padding=1)
        self.trunk = conv
        self.block = op(alias="twice", conv=nn.Conv2d(2, 2, 1), same=conv, none=nn.Identity())
        self.other = op(alias="twice", conv=nn.Conv2d(2, 2, 5, padding=2), same=conv, none=nn.ReLU())
        self.last = op(a=conv, b=nn.Conv2d(2, 2, 3, padding=1, bias=False), c=self.block)

    def forward(self, x):
        x = self.block(self.trunk(x))
        return self.last(self.block(self.other(functional.max_pool2d(x, 2))))


def nested():
    inner = op(
        conv=nn.Conv2d(2, 2, 3, padding=1), deep=nn.Sequential(nn.ReLU(), op(a=nn.Conv2d(2, 2, 1), b=nn.Identity()))
    )
    middle = nn.Sequential(nn.Conv2d(2, 2, 1), inner, nn.BatchNorm2d(2))
    return nn.Sequential(op(none=nn.Identity(), middle=middle, flat=nn.Conv2d(2, 2, 3, padding=1)), nn.Conv2d(2, 1, 1))


def tied_candidates():
    weight = nn.Linear(3, 3)
    models = [nn.Linear(3, 3) for _ in range(2)]
    for model in models:
        model.weight = weight.weight
    return nn.Sequential(op(a=models[0], b=nn.Identity()), op(a=models[1], b=nn.Linear(3, 3, bias=False)))


def shape_changing():
    """Strides and paddings: what follows a block depends on its choice, and candidates nest."""

    def block(channels):
        deep = op(same=nn.Conv2d(channels, channels, 3, padding=1), smaller=nn.Conv2d(channels, channels, 3))
        return op(keep=nn.Conv2d(channels, channels, 1), halved=nn.MaxPool2d(2), deep=nn.Sequential(deep, nn.ReLU()))

    return nn.Sequential(block(2), nn.Conv2d(2, 3, 1), block(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))


def resolution_and_strides():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.resolution = MutableValue([8, 6])
            self.blocks = nn.Sequential(*(op(same=nn.Conv2d(2, 2, 1), halved=nn.Conv2d(2, 2, 2, 2)) for _ in range(2)))

        def forward(self, x):
            return self.blocks(functional.interpolate(x, size=(self.resolution.current_choice,) * 2))

    return Net()


def half_precision():
    class Half(nn.Module):
        def forward(self, x):
            return x.to(torch.bfloat16).relu()

    class Float(nn.Module):
        def forward(self, x):
            return x.exp().exp()

    return nn.Sequential(op(plain=nn.ReLU(), rounded=Half()), Float())


IMAGE = torch.zeros(1, 2, 8, 8)
MODELS = {
    "nested candidates, three deep": (nested, IMAGE),
    "a shared alias, a block used twice, a shared layer": (Shared, IMAGE),
    "parameters tied between candidates of two blocks": (tied_candidates, torch.zeros(2, 3)),
    "candidates with different strides": (shape_changing, IMAGE),
    "candidates with another dtype": (half_precision, IMAGE),
    "a resolution before strides": (resolution_and_strides, IMAGE),
    "depth, kernels and resolution, largest by default": (DepthAndKernels, IMAGE),
    "depth, kernels and resolution, smallest by default": (lambda: DepthAndKernels(MutableValue), IMAGE),
    "switches that hide each other": (Hidden, torch.zeros(2, 4)),
    "a derived width": (Derived, torch.zeros(3, 4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_table_equals_counting_the_exported_model(name):
    make, inputs = MODELS[name]
    assert_table_is_exact(make(), inputs, limit=60)


def test_all_256_chain_nets_cost_what_their_exports_cost():
    table = assert_table_is_exact(chain_net(), torch.zeros(1, 1, 10, 10), limit=256)
    codes = np.array([table.space.encode(architecture) for architecture in table.space.grid()])
    for metric in METRICS:
        values = table.evaluate(codes, metric)
        assert values.tolist() == [table(architecture)[metric] for architecture in table.space.grid()]
        assert table.reachable(metric) == (values.min(), values.max())


def test_a_shufflenet_space_costs_what_its_exports_cost():
    names = {"shuffle_3x3": 3, "shuffle_7x7": 7}
    candidates = {name: {"type": "ShuffleBlock", "kernel_size": size} for name, size in names.items()}
    block = {"type": "OneShotMutableOP", "candidates": {**candidates, "xception": {"type": "ShuffleXception"}}}
    net = SearchableShuffleNetV2([[8, 2, block], [16, 2, block], [24, 2, block], [32, 1, block]])
    assert_table_is_exact(net, torch.zeros(1, 3, 64, 64), limit=6)


# ---- random models ---------------------------------------------------------------------------------------------------


def leaf(kind):
    return {
        "linear": lambda: nn.Linear(4, 4),
        "bare": lambda: nn.Linear(4, 4, bias=False),
        "norm": lambda: nn.BatchNorm1d(4),
        "act": nn.ReLU,
    }[kind]()


def build(tree):
    kind, parts = tree
    if kind == "leaf":
        return leaf(parts)
    if kind == "chain":
        return nn.Sequential(*map(build, parts))
    alias, candidates = parts
    return OneShotMutableOP({f"c{n}": build(c) for n, c in enumerate(candidates)}, alias=alias)


LEAVES = st.tuples(st.just("leaf"), st.sampled_from(["linear", "bare", "norm", "act"]))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.just("chain"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(
            st.just("op"), st.tuples(st.sampled_from([None, None, "tied"]), st.lists(inner, min_size=2, max_size=2))
        ),
    ),
    max_leaves=9,
)


@given(TREES)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_random_nested_models_cost_what_their_exports_cost(tree):
    first = ("op", (None, [("leaf", "linear"), ("leaf", "act")]))
    table = assert_table_is_exact(build(("chain", [first, tree])), torch.zeros(2, 4), limit=12)
    if table.space.size <= 64:
        costs = [table(architecture) for architecture in table.space.grid()]
        for metric in METRICS:
            assert table.reachable(metric) == (min(c[metric] for c in costs), max(c[metric] for c in costs))


# ---- what the table promises -----------------------------------------------------------------------------------------


def test_cheapest_and_largest_are_architectures_of_the_space_with_the_extreme_costs():
    table = CostTable.from_model(Mutator(nested()), IMAGE)
    costs = {tuple(a.values()): table(a).macs for a in table.space.grid()}
    for architecture, extreme in ((table.cheapest(), min(costs.values())), (table.largest(), max(costs.values()))):
        assert architecture == table.space.canonical(architecture)
        assert table(architecture).macs == extreme


def test_decisions_that_do_not_matter_do_not_cost():
    table = CostTable.from_model(Mutator(nested()), IMAGE)
    spelled = [
        dict(zip(table.space.names, choices, strict=True))
        for choices in itertools.product(*(d.choices for d in table.space))
    ]
    assert len(spelled) > table.space.size
    for architecture in spelled:
        assert table(architecture) == table(table.space.canonical(architecture))


def test_building_a_table_leaves_model_and_random_states_as_they_were():
    model = chain_net()
    mutator = Mutator(model)
    mutator.set_choices(mutator.space.sample(3))
    model(torch.ones(2, 1, 10, 10)).sum().backward()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    choices, generator = mutator.current_choices, torch.get_rng_state()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    CostTable.from_model(mutator, torch.zeros(1, 1, 10, 10))
    assert mutator.current_choices == choices
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert {n for n, p in model.named_parameters() if p.grad is not None} == gradients.keys()
    assert all(torch.equal(p.grad, gradients[n]) for n, p in model.named_parameters() if n in gradients)
    assert all(module.training for module in model.modules())


def test_custom_groups_name_the_decisions():
    model = chain_net()
    mutator = Mutator(model, custom_groups={"early": ["block0", "block1"], "late": ["block2", "block3"]})
    table = CostTable.from_model(mutator, torch.zeros(1, 1, 10, 10))
    for architecture in mutator.space.grid():
        subnet = export(model, architecture, mutator=mutator)
        assert table(architecture) == count(subnet, torch.zeros(1, 1, 10, 10))


def test_operations_without_a_formula_are_listed_wherever_they_ran():
    model = nn.Sequential(op(a=nn.Identity(), b=nn.Bilinear(2, 2, 2)))
    model[0].candidates["b"].forward = lambda x, layer=model[0].candidates["b"]: functional.bilinear(x, x, layer.weight)
    table = CostTable.from_model(Mutator(model), torch.zeros(1, 2))
    assert table.uncounted["aten._trilinear"] == 1


class ManyInteracting(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.values = nn.ModuleList(MutableValue([1, 2, 3]) for _ in range(count))

    def forward(self, x):
        width = sum(value.current_choice for value in self.values)
        return x[:, :width] @ x[:, :width].T


@pytest.mark.parametrize("decisions", [5, 40])
def test_decisions_that_interact_in_too_many_combinations_are_named(decisions):
    with pytest.raises(
        CostError, match="forwards would be needed: the decisions 'values.0', .* raise max_observations"
    ):
        CostTable.from_model(Mutator(ManyInteracting(decisions)), torch.zeros(2, 200), max_observations=100)


def test_a_layer_shared_by_too_many_blocks_is_an_error_and_not_a_huge_table():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(*(op(a=shared, b=nn.Identity(), c=nn.ReLU(), d=nn.Tanh()) for _ in range(20)))
    with pytest.raises(
        CostError, match="a table of 1099511627776 entries .* 'and 12 more'|'7' and 12 more share tensors"
    ):
        CostTable.from_model(Mutator(model), torch.zeros(1, 4))


def test_a_model_that_reads_a_blocks_choice_elsewhere_is_an_error():
    class Peeking(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = op(a=nn.ReLU(), b=nn.Identity())
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            x = self.block(x)
            return self.layer(x) if self.block.current_choice == "b" else x

    with pytest.raises(
        CostError, match="the table says .* where a forward counts .* reading the choice of a block elsewhere"
    ):
        CostTable.from_model(Mutator(Peeking()), torch.zeros(1, 4))


def test_architectures_of_another_space_and_unknown_metrics_are_refused():
    table = CostTable.from_model(Mutator(chain_net()), torch.zeros(1, 1, 10, 10))
    with pytest.raises(SpaceError, match="leaves 3 undecided: 'block1', 'block2', 'block3'"):
        table({"block0": "skip"})
    with pytest.raises(ChoiceError, match="'block0' has no choice 'conv33'"):
        table({**table.space.default, "block0": "conv33"})
    with pytest.raises(CostError, match="no metric 'mac'; did you mean 'macs'"):
        table.cheapest("mac")


class Cropped(OneShotMutableModule[str, str]):
    """Keeps one kernel, and makes the convolution that a choice stands for."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4, 5, 5))
        self.sizes = {"k1": 1, "k3": 3, "k5": 5}

    @property
    def choices(self):
        return list(self.sizes)

    def chosen_module(self, choice):
        size = self.sizes[choice]
        conv = nn.Conv2d(4, 4, size, padding=size // 2, bias=False)
        margin = (5 - size) // 2
        conv.weight.data = self.weight.data[:, :, margin : 5 - margin, margin : 5 - margin].clone()
        return conv

    def sample_choice(self, rng=None):
        return "k1"

    def forward_choice(self, x, choice):
        return self.chosen_module(choice)(x)

    def forward_fixed(self, x):
        return self.forward_choice(x, self.current_choice)

    def forward_all(self, x):
        return sum(self.forward_choice(x, choice) for choice in self.choices)

    def fix_chosen(self, chosen):
        self.current_choice = chosen

    def dump_chosen(self):
        return DumpChosen(self.current_choice)


def test_a_mutable_that_makes_its_modules_costs_what_they_cost():
    x = torch.zeros(1, 4, 6, 6)
    net = nn.Sequential(nn.Conv2d(4, 4, 1), Cropped())
    table = CostTable.from_model(Mutator(net), x)
    for choice in ("k1", "k3", "k5"):
        said, counted = table({"1": choice}), count(export(net, {"1": choice}), x)
        assert (said.macs, said.params, said.size_mb) == (counted.macs, counted.params, counted.size_mb)
