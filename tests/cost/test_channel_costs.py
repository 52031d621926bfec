"""The table of a searchable model says what counting the exported model says, for every architecture and metric."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mutorch.channels import depth, searchable, widths
from mutorch.cost import METRICS, Budget, CostTable, count
from mutorch.errors import CostError
from mutorch.mutables import MutableValue, OneShotMutableOP
from mutorch.mutators import Mutator
from mutorch.space import random_at
from mutorch.subnet import export

FINE = [widths(ratios=(0.1, 0.3, 0.5, 0.8, 1.0), divisor=1)]
WIDER = [widths(ratios=(0.3, 0.5, 1.0), divisor=1)]
IMAGE = torch.zeros(2, 3, 8, 8)
TOKENS = torch.zeros(2, 5, 16)


def assert_exact(net, inputs, *, mutator=None, limit=8, convention="mac"):
    """The table equals counting exported models: the extremes, and random ones."""
    mutator = mutator or Mutator(net)
    space = mutator.space
    table = CostTable.from_model(mutator, inputs, convention=convention, num_checks=1)
    chosen = [space.min, space.max, *(space.sample(random_at(0, "test", number)) for number in range(limit))]
    for architecture in chosen:
        subnet = export(net, architecture, mutator=mutator).eval()
        assert table(architecture) == count(subnet, inputs, convention=convention), architecture
    codes = np.array([space.encode(architecture) for architecture in chosen], dtype=np.uint8)
    for metric in METRICS:
        assert table.evaluate(codes, metric).tolist() == [table(architecture)[metric] for architecture in chosen]
        smallest, largest = table.reachable(metric)
        assert smallest <= min(table.evaluate(codes, metric)) <= max(table.evaluate(codes, metric)) <= largest
    return table


# ---- models ----------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A stage of two blocks with one width, and a strided shortcut to the next."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.down = nn.Conv2d(12, 10, 3, stride=2, padding=1)
        self.up = nn.Conv2d(10, 12, 1, bias=False)
        self.shortcut = nn.Conv2d(12, 20, 1, stride=2)
        self.main = nn.Sequential(nn.Conv2d(12, 20, 3, stride=2, padding=1), nn.BatchNorm2d(20), nn.PReLU(20))
        self.head = nn.Linear(20, 7)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + functional.interpolate(self.up(self.down(x).relu()), scale_factor=2)
        return self.head((self.main(x) + self.shortcut(x)).mean((2, 3)))


class Concat(nn.Module):
    """Layers that see the outputs of all before them, as in a DenseNet."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList()
        channels = 3
        for _ in range(4):
            self.layers.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 6, 3, padding=1)))
            channels += 6
        self.flat = nn.Linear(channels * 4, 5)

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.flat(functional.adaptive_max_pool2d(x, 2).flatten(1))


class Grouped(nn.Module):
    """Depthwise, grouped and transposed convolutions, norms of groups, squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Conv2d(3, 12, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.group_norm = nn.GroupNorm(4, 12)
        self.squeeze, self.excite = nn.Conv2d(12, 6, 1), nn.Conv2d(6, 12, 1)
        self.grouped = nn.Conv2d(12, 16, 3, padding=1, groups=4)
        self.instance = nn.InstanceNorm2d(16, affine=True)
        self.transposed = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.layer_norm = nn.GroupNorm(1, 8)
        self.out = nn.ConvTranspose2d(8, 4, 3, groups=2)

    def forward(self, x):
        x = self.group_norm(self.depthwise(self.expand(x)))
        x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = self.layer_norm(self.transposed(self.instance(self.grouped(x))))
        return self.out(x)


class Attention(nn.Module):
    """Heads, the width of values, and the hidden width of an MLP."""

    def __init__(self, fused=True):
        super().__init__()
        self.num_heads, self.fused = 4, fused
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 3 * 16)
        self.proj = nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 40), nn.GELU(), nn.Linear(40, 16))

    def forward(self, x):
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            out = functional.scaled_dot_product_attention(q, k, v)
        else:
            out = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        x = x + self.proj(out.transpose(1, 2).reshape(batch, length, -1))
        return x + self.mlp(x)


class Multihead(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16, 24)
        self.attention = nn.MultiheadAttention(24, 4, batch_first=True)
        self.out = nn.Linear(24, 3)

    def forward(self, x):
        x = self.embed(x)
        return self.out(x + self.attention(x, x, x, need_weights=False)[0])


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.layers = kind(12, 10, **options)
        self.out = nn.Linear(20 if options.get("bidirectional") else 10, 4)

    def forward(self, tokens):
        return self.out(self.layers(self.embed(tokens))[0])


class Shared(nn.Module):
    """One convolution that runs twice, and two embeddings that are one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.twice = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
        self.inner = nn.Conv2d(12, 9, 1)
        self.outer = nn.Conv2d(9, 5, 1)
        self.same = self.inner

    def forward(self, x):
        x = self.twice(self.twice(self.stem(x)))
        return self.outer(self.inner(x) + self.same(x))


class Buffers(nn.Module):
    """Buffers that follow widths, one that is not float, and one that is not saved."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3)
        self.register_buffer("scale", torch.ones(1, 12, 1, 1))
        self.register_buffer("steps", torch.zeros(5, dtype=torch.int64))
        self.register_buffer("cache", torch.zeros(7), persistent=False)
        self.out = nn.Conv2d(12, 4, 1)

    def forward(self, x):
        x = self.conv(x)
        return self.out(x * self.scale)


MODELS = {
    "residual": (Residual, IMAGE),
    "concat": (Concat, IMAGE),
    "grouped": (Grouped, IMAGE),
    "attention": (Attention, TOKENS),
    "attention by hand": (lambda: Attention(fused=False), TOKENS),
    "multihead": (Multihead, TOKENS),
    "lstm": (lambda: Recurrent(nn.LSTM, batch_first=True), torch.zeros(2, 5, dtype=torch.int64)),
    "bidirectional": (
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
        torch.zeros(5, 2, dtype=torch.int64),
    ),
    "gru": (lambda: Recurrent(nn.GRU), torch.zeros(5, 2, dtype=torch.int64)),
    "shared": (Shared, IMAGE),
    "buffers": (Buffers, IMAGE),
}


@pytest.mark.parametrize("convention", ["mac", "mmr"])
@pytest.mark.parametrize("name", MODELS)
def test_the_table_says_what_the_exported_model_costs(name, convention):
    build, inputs = MODELS[name]
    net = searchable(build(), inputs, rules=WIDER if name == "concat" else FINE)
    assert_exact(net, inputs, convention=convention)


def test_other_inputs_than_those_the_model_was_made_searchable_with():
    net = searchable(Residual(), IMAGE, rules=FINE)
    assert_exact(net, torch.zeros(1, 3, 16, 12))


def test_a_copy_and_a_pickle_cost_the_same():
    net = searchable(Residual(), IMAGE, rules=FINE)
    table = CostTable.from_model(Mutator(net), IMAGE)
    architecture = table.space.sample(3)
    assert assert_exact(copy.deepcopy(net), IMAGE)(architecture) == table(architecture)
    del net.channel_search
    assert assert_exact(pickle.loads(pickle.dumps(net)), IMAGE)(architecture) == table(architecture)


def test_the_model_is_as_before_afterwards():
    net = searchable(Recurrent(nn.LSTM), torch.zeros(5, 2, dtype=torch.int64), rules=FINE)
    mutator = Mutator(net)
    mutator.set_min_choices()
    before, classes = net(torch.ones(5, 2, dtype=torch.int64)), [type(module) for module in net.modules()]
    state = {name: tensor.data_ptr() for name, tensor in net.state_dict().items()}
    CostTable.from_model(mutator, torch.zeros(5, 2, dtype=torch.int64))
    assert mutator.current_choices == mutator.min_choices
    assert [type(module) for module in net.modules()] == classes
    assert {name: tensor.data_ptr() for name, tensor in net.state_dict().items()} == state
    assert torch.equal(net(torch.ones(5, 2, dtype=torch.int64)), before)


# ---- other decisions beside widths -----------------------------------------------------------------------------------


class Mixed(nn.Module):
    """Candidates with widths of their own, a depth, and a resolution, around searchable channels."""

    def __init__(self):
        super().__init__()
        self.resolution = MutableValue([4, 6])
        self.depth = MutableValue([1, 2])
        self.resolution.current_choice, self.depth.current_choice = 6, 2
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.block = OneShotMutableOP(
            {
                "wide": nn.Sequential(nn.Conv2d(12, 20, 1), nn.ReLU(), nn.Conv2d(20, 12, 3, padding=1)),
                "plain": nn.Conv2d(12, 12, 3, padding=1),
                "skip": nn.Identity(),
            }
        )
        self.layers = nn.ModuleList(nn.Conv2d(12, 12, 1) for _ in range(2))
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = functional.interpolate(x, size=(self.resolution.current_choice,) * 2)
        x = self.block(self.stem(x))
        for layer in list(self.layers)[: self.depth.current_choice]:
            x = x + layer(x)
        return self.head(x.mean((2, 3)))


def test_candidates_and_values_beside_widths():
    model = Mixed()
    Mutator(model)
    net = searchable(model, IMAGE, rules=FINE)
    assert {"resolution", "depth", "block", "stem", "block._candidates.wide.0"} <= set(Mutator(net).space.names)
    assert_exact(net, IMAGE, limit=20)


class Scaled(nn.Module):
    """A residual block with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(16))
        self.mlp = nn.Sequential(nn.Linear(16, 20), nn.GELU(), nn.Linear(20, 16))

    def forward(self, x):
        return x + self.gamma * self.mlp(x)


def test_depths_beside_widths():
    model = nn.Sequential(nn.Linear(16, 16), nn.Sequential(*(Scaled() for _ in range(4))), nn.Linear(16, 3))
    net = searchable(model, TOKENS, rules=[*FINE, depth("1")])
    assert "1.depth" in Mutator(net).space.names
    assert_exact(net, TOKENS, limit=20)


def test_searchable_models_inside_a_larger_one_and_as_candidates():
    trunk = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 8, 1))
    features = torch.zeros(2, 8, 8, 8)
    one = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1))
    model = nn.Sequential(
        searchable(trunk, IMAGE, rules=FINE),
        OneShotMutableOP({"small": searchable(one, features, rules=FINE), "none": nn.Identity()}),
        nn.Flatten(),
        nn.Linear(8 * 64, 4),
    )
    assert_exact(model, IMAGE, limit=20)


def test_units_decided_together_with_custom_groups():
    net = searchable(
        nn.Sequential(nn.Linear(16, 10), nn.ReLU(), nn.Linear(10, 10), nn.Linear(10, 3)), TOKENS, rules=FINE
    )
    mutator = Mutator(net, custom_groups={"width": ["0", "2"]})
    assert mutator.space.names == ("width",)
    table = assert_exact(net, TOKENS, mutator=mutator)
    assert len(table._factors["params"].tables) == 2


# ---- what is refused, and what a budget needs ------------------------------------------------------------------------


def test_a_model_that_reads_its_own_widths_is_refused():
    class Peeks(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(16, 12), nn.Linear(12, 3)
            self.extra = nn.Linear(16, 3)

        def forward(self, x):
            hidden = self.first(x)
            out = self.last(hidden)
            return out if hidden.size(-1) < 12 else out + self.extra(x)

    with pytest.raises(CostError, match="the table says .* where a forward counts"):
        CostTable.from_model(Mutator(searchable(Peeks(), TOKENS, rules=FINE)), TOKENS)


def test_the_ends_of_a_densely_coupled_space_are_exact_and_cheap():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(16 + 12 * number, 12) for number in range(30))

        def forward(self, x):
            for layer in self.layers:
                x = torch.cat([x, layer(x)], -1)
            return x.sum(-1)

    net = searchable(Dense(), TOKENS, rules=FINE)
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, TOKENS)
    assert table.cheapest("macs") == mutator.space.min
    assert table.largest("params") == mutator.space.max
    assert table.reachable("macs")[1] == table(mutator.space.max).macs
    budget = Budget.parse({"macs": "50%"}, table)
    assert budget.bounds["macs"][1] == table(mutator.space.max).macs / 2
