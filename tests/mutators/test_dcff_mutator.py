"""Filters that are fused: what is computed, trained and exported (DCFF, arXiv 2107.06916)."""

import random

import pytest
import torch
from channels.published import resnet50
from torch import nn

from mutorch import Mutator, count, export
from mutorch.errors import ConfigError
from mutorch.mutators import ChannelMutator, DCFFChannelMutator
from mutorch.registry import MODELS
from mutorch.training import FusedStep, FusionTemperature

X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
PARSE = {"type": "ChannelAnalyzer", "demo_input": (1, 3, 8, 8)}


class Block(nn.Module):
    """A residual block with a convolution on its shortcut, so that two convolutions make one unit's channels."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1)
        )
        self.norm, self.shortcut = nn.BatchNorm2d(16), nn.Conv2d(8, 16, 1)

    def forward(self, x):
        return torch.relu(self.norm(self.body(x)) + self.shortcut(x))


def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(192, 5),
    )


def residual():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Block(), nn.Flatten(), nn.Linear(576, 5))


def depthwise():
    return nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.BatchNorm2d(12), nn.ReLU6(), nn.Conv2d(12, 12, 3, groups=12, bias=False),
        nn.BatchNorm2d(12), nn.ReLU6(), nn.Conv2d(12, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


def fused(build, seed=0):
    torch.manual_seed(seed)
    model = build()
    mutator = DCFFChannelMutator({"type": "DCFFChannelUnit", "default_args": {"choice_mode": "number"}}, PARSE)
    mutator.prepare_from_supernet(model)
    return model, mutator


def train(model, mutator, architecture, steps=6, every=2):
    """A loop as a user writes it, with the temperature that falls, and the last fusing at its end."""
    step = FusedStep(architecture, steps, every, FusionTemperature(stages=3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    labels = torch.tensor([0, 1, 2])
    for number in range(steps):
        optimizer.zero_grad()
        step(model, mutator, lambda m: nn.functional.cross_entropy(m(X), labels), seed=0, step=number)
        optimizer.step()
    step.fuse(mutator, steps)


@pytest.mark.parametrize("build", [small, residual, depthwise])
@pytest.mark.parametrize("seed", range(4))
def test_the_exported_plain_net_equals_the_fused_net_bit_for_bit(build, seed):
    model, mutator = fused(build, seed)
    plain = build()
    architecture = mutator.space.sample(random.Random(seed))
    train(model, mutator, architecture)
    model.eval()
    subnet = export(model, architecture)
    with torch.no_grad():
        assert torch.equal(subnet(X), model(X))
    assert [type(one) for one in subnet.modules()] == [type(one) for one in plain.modules()]
    for name, kept in architecture.items():
        assert subnet.get_submodule(name.split("_")[0]).out_channels == kept


def test_filters_of_the_fused_net_are_the_documented_mixtures():
    model, mutator = fused(small)
    mutator.set_choices(dict.fromkeys(mutator.space.names, 5))
    mutator.calc_information(0.3)
    weight = model.state_dict()["0.weight"].flatten(1)
    alike = torch.softmax(-torch.cdist(weight, weight) / 0.3, dim=1)
    kept = mutator.units[0].mutable_channel.active_index()
    assert torch.allclose(model[0].weight.flatten(1), (alike @ weight)[kept], atol=1e-5)
    assert torch.allclose(model[0].get_pooled_channel(0.3).sum(), alike[kept].sum(), atol=1e-5)
    assert set(map(tuple, model[0].get_pooled_channel(0.3).tolist())) == set(map(tuple, model[0].fusion.tolist()))


def test_every_filter_is_trained_while_only_some_compute():
    model, mutator = fused(residual)
    architecture = mutator.space.min
    step = FusedStep(architecture, 10)
    step(model, mutator, lambda m: m(X).square().sum(), seed=0, step=0)
    for path in ("0", "3.body.0", "3.body.3", "3.shortcut"):
        conv = model.get_submodule(path)
        gradient = conv._parameters["weight"].grad
        assert gradient.shape[0] == vars(conv)["out_channels"] > conv.out_channels
        assert bool(gradient.flatten(1).abs().sum(1).all())


def test_filters_that_are_fused_keep_their_norms_and_the_columns_that_read_them():
    model, mutator = fused(small)
    mutator.set_choices(dict.fromkeys(mutator.space.names, 4))
    mutator.calc_information(1e-4)  # so cold that every filter is itself
    kept = mutator.units[0].mutable_channel.active_index()
    state = model.state_dict()
    assert kept.tolist() != [0, 1, 2, 3]
    assert torch.allclose(model[0].weight, state["0.weight"][kept], atol=1e-6)
    assert torch.equal(model[1].running_mean, state["1.running_mean"][kept])
    assert model[3].weight.shape == (4, 4, 3, 3)


def test_convolutions_that_are_added_keep_the_same_channels():
    model, mutator = fused(residual)
    architecture = {name: max(2, choice // 2) for name, choice in mutator.space.max.items()}
    mutator.set_choices(architecture)
    mutator.calc_information(1e-4)
    shared = mutator.name2unit["3.body.3_(0, 16)_16"].mutable_channel.active_index()
    state = model.state_dict()
    for path in ("3.body.3", "3.shortcut"):
        assert torch.allclose(model.get_submodule(path).bias, state[f"{path}.bias"][shared], atol=1e-6)


def test_at_full_width_nothing_is_fused():
    model, mutator = fused(residual)
    expected = model.eval()(X)
    mutator.calc_information(1.0)
    assert torch.equal(model(X), expected)


def test_forgetting_gives_the_first_filters_back():
    model, mutator = fused(small)
    mutator.set_choices(dict.fromkeys(mutator.space.names, 4))
    before = model.eval()(X)
    mutator.calc_information(0.5)
    assert not torch.allclose(model(X), before)
    mutator.forget_information()
    assert torch.equal(model(X), before)


def test_the_temperature_falls_as_published():
    at = FusionTemperature(stages=10)
    # T = A / (1 + e^-kn) + t_s - A / 2 with A = 2 (t_e - t_s) (1 + e^-kN) / (1 - e^-kN), and 1 / T
    assert at(0) == 1.0
    assert at(0.1) == pytest.approx(2.1635e-4, rel=1e-3)
    assert at(1.0) == pytest.approx(1e-4)
    values = [at(done / 100) for done in range(101)]
    assert values == sorted(values, reverse=True)
    assert (at(-1), at(2)) == (at(0), at(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FusionTemperature(start=0), "0 < start < end, got start=0"),
        (lambda: FusionTemperature(k=0), "must be positive, got k=0"),
        (lambda: DCFFChannelMutator("L1MutableChannelUnit"), "has DCFFChannelUnits, got L1Mutable"),
        (lambda: FusedStep({}, 0), "at least 1, got steps=0"),
        (lambda: fused(small)[1].calc_information(0), "must be a positive number, got 0"),
        (lambda: FusedStep({}, 3).fuse(Mutator(fused(small)[0]), 0), "DCFFChannelMutator, got a Mutator"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_configs_build_both_spellings():
    model = small()
    mutator = MODELS.build({"type": "DCFFChannelMutator", "parse_cfg": PARSE})
    mutator.prepare_from_supernet(model)
    assert mutator.config_template()["channel_unit_cfg"]["type"] == "DCFFChannelUnit"
    other = ChannelMutator({"type": "DCFFChannelUnit"}, PARSE)
    other.prepare_from_supernet(small())
    assert type(other.units[0]) is type(mutator.units[0])


def ratios_of_resnet50():
    """What DCFF's config of ResNet-50 keeps of each unit; all of the stem."""
    kept = {"conv1": 1.0}
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        for block in range(depth):
            first, second = (0.7, 0.7) if stage == 4 or (stage == 3 and block >= 3) else (0.65, 0.6)
            kept |= {f"layer{stage}.{block}.conv1": first, f"layer{stage}.{block}.conv2": second}
            kept |= {f"layer{stage}.{block}.conv3": 0.9} if block == 0 else {}
    return kept


def test_the_published_resnet50_has_the_published_parameters_and_operations():
    with torch.device("meta"):
        model = resnet50()
    parse = {"type": "ChannelAnalyzer", "demo_input": torch.zeros(1, 3, 224, 224, device="meta")}
    mutator = DCFFChannelMutator(parse_cfg=parse)
    mutator.prepare_from_supernet(model)
    ratios = {unit.name: ratios_of_resnet50()[unit.name.split("_")[0]] for unit in mutator.mutable_units}
    assert len(ratios) == 37
    for unit in mutator.mutable_units:
        unit.current_choice = ratios[unit.name]
    costs = count(export(model, mutator.current_choices, mutator=mutator), parse["demo_input"], convention="mmr")
    assert (costs.macs, costs.params) == (2_257_523_259, 15_163_623)
