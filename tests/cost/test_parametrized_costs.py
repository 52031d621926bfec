"""Costs of models whose layers have arguments that are searched."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mutorch.nn as mnn
from mutorch import CostTable, Mutator, OneShotMutableOP, count, export, searchable, widths
from mutorch.mutables import OneShotMutableValue, ValueChoice
from mutorch.space import random_at

X = torch.zeros(2, 3, 12, 12)


def interacting():
    """Two values in one layer, and each in others."""
    a, b = ValueChoice([1, 2, 3], label="a"), ValueChoice([1, 2], label="b")
    return nn.Sequential(
        mnn.Conv2d(3, 8 * a, 3),
        mnn.BatchNorm2d(8 * a),
        mnn.Conv2d(8 * a, 4 * a * b, 1),
        mnn.Conv2d(4 * a * b, 2 * b, 3),
    )


def kernels():
    kernel, dilation = ValueChoice([(1, 7), (3, 3), (5, 1)]), ValueChoice([1, 2])
    stride = ValueChoice([1, 2], label="stride")
    return nn.Sequential(
        mnn.Conv2d(3, 8, kernel, dilation=dilation, padding=6), mnn.Conv2d(8, 8, 3, stride=stride), nn.Conv2d(8, 4, 3)
    )


def depthwise():
    width, groups = ValueChoice([8, 16], label="w"), ValueChoice([1, 2, 4])
    return nn.Sequential(
        mnn.Conv2d(3, width, 1),
        mnn.Conv2d(width, width, ValueChoice([3, 5]), groups=width, bias=False),
        mnn.Conv2d(width, 16, 1, groups=groups, bias=ValueChoice([True, False])),
    )


def in_candidates():
    width = OneShotMutableValue([8, 16], alias="w")
    kernel = ValueChoice([1, 3], label="k")
    return nn.Sequential(
        mnn.Conv2d(3, width, 1),
        OneShotMutableOP(
            {
                "conv": mnn.Conv2d(width, width, kernel, padding=kernel // 2),
                "norm": mnn.BatchNorm2d(width),
                "skip": nn.Identity(),
            }
        ),
        mnn.Repeat(lambda _: mnn.Conv2d(width, width, ValueChoice([1, 2])), (0, 2)),
        mnn.Conv2d(width, 2, 1),
    )


def shared_tensors():
    width = ValueChoice([8, 16], label="w")
    conv = mnn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(mnn.Conv2d(3, width, 1), conv, conv, mnn.Conv2d(width, 2, 1))


def widths_around():
    width = ValueChoice([8, 16], label="w")
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 1),
        mnn.Conv2d(8, width, 3),
        mnn.Conv2d(width, 8, 1),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 2, 1),
    )
    return searchable(net, X, rules=[widths(ratios=(0.5, 1.0), divisor=1)])


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        width, heads = ValueChoice([4, 8], label="w"), ValueChoice([1, 2])
        self.inner = mnn.Conv2d(3, width, 3)
        self.encoder = mnn.TransformerEncoderLayer(width, heads, dim_feedforward=2 * width, batch_first=True)
        self.gru = mnn.GRU(width, ValueChoice([3, 6]), batch_first=True)

    def forward(self, x):
        return self.gru(self.encoder(self.inner(x).flatten(2).transpose(1, 2)))[0]


@pytest.mark.parametrize(
    "build", [interacting, kernels, depthwise, in_candidates, shared_tensors, widths_around, Attending]
)
def test_a_table_says_what_exported_models_cost(build):
    net = build().eval()
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, X)
    for number in range(25):
        architecture = mutator.space.sample(random_at(number, "cost"))
        assert table(architecture) == count(export(net, architecture), X)


def test_the_choices_are_as_before_after_a_table_is_built():
    net = interacting()
    mutator = Mutator(net)
    mutator.set_choices({"a": 2, "b": 2})
    CostTable.from_model(mutator, X)
    assert mutator.current_choices == {"a": 2, "b": 2}


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_any_two_values_in_any_layers_are_priced_exactly(data):
    a, b = ValueChoice([2, 4, 6], label="a"), ValueChoice([1, 3], label="b")
    channels, made = 3, []
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["conv", "depthwise", "norm", "product"]))
        if kind == "conv":
            made.append(mnn.Conv2d(channels, a, b, bias=data.draw(st.booleans())))
            channels = a
        elif kind == "product":
            made.append(mnn.Conv2d(channels, a * b, 1, groups=1))
            channels = a * b
        elif kind == "depthwise":
            made.append(mnn.Conv2d(channels, channels, b, padding=b // 2, groups=channels))
        else:
            made.append(mnn.BatchNorm2d(channels))
    net = nn.Sequential(*made, mnn.Conv2d(channels, 1, b))
    mutator = Mutator(net)
    table = CostTable.from_model(mutator, X)
    for architecture in (mutator.space.sample(number) for number in range(6)):
        assert table(architecture) == count(export(net, architecture), X)
