import copy
import json

import pytest
import torch
import yaml
from torch import nn

from mutorch import Mutator, export, searchable
from mutorch.channels import (
    DCFFChannelUnit,
    DMCPChannelUnit,
    L1MutableChannelUnit,
    OneShotMutableChannelUnit,
    SequentialMutableChannelUnit,
    SlimmableChannelUnit,
)
from mutorch.errors import ConfigError, FixedError, SpaceError
from mutorch.mutables import OneShotMutableChannel
from mutorch.mutators import ChannelMutator
from mutorch.ops import DynamicConv2d
from mutorch.subnet import export_fix_subnet, load_fix_subnet

PARSE = {"type": "ChannelAnalyzer", "demo_input": (1, 3, 8, 8), "tracer_type": "BackwardTracer"}
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head((x + self.body(x)).mean((2, 3)))


NAMES = ["stem_(0, 8)_8", "body.0_(0, 16)_16"]


def mutator_of(model, unit=SequentialMutableChannelUnit, **kwargs):
    mutator = ChannelMutator(unit, PARSE, **kwargs)
    mutator.prepare_from_supernet(model)
    return mutator


@pytest.mark.parametrize(
    "unit",
    [SequentialMutableChannelUnit, OneShotMutableChannelUnit, L1MutableChannelUnit, DCFFChannelUnit, DMCPChannelUnit],
)
def test_a_model_is_converted_with_its_weights_and_exported_again(unit):
    model, plain = Net().eval(), Net().eval()
    mutator = mutator_of(model, unit)
    assert torch.equal(model(X), plain(X))
    assert list(mutator.space.names) == [one.name for one in mutator.units] == NAMES
    for seed in range(3):
        mutator.set_choices(mutator.sample_choices(rng=seed))
        subnet = export(model)
        assert torch.equal(subnet(X), model(X))
        assert {type(module) for module in subnet.modules()} == {type(module) for module in plain.modules()}
    mutator.set_max_choices()
    assert torch.equal(export(model)(X), plain(X))
    assert list(model.state_dict()) == list(plain.state_dict())


def test_declared_and_observed_models_compute_the_same_subnets():
    declared = Net().eval()
    mutator = mutator_of(
        declared, {"type": OneShotMutableChannelUnit, "default_args": {"candidate_choices": [0.5, 1.0]}}
    )
    observed = searchable(Net().eval(), X)
    for name in NAMES:
        choices = dict.fromkeys(NAMES, 1.0) | {name: 0.5}
        mutator.set_choices(choices)
        counts = {one.split("_")[0]: int(choices[one] * int(one.rpartition("_")[2])) for one in NAMES}
        names = Mutator(observed).space.names
        Mutator(observed).set_choices({one: next(c for path, c in counts.items() if path == one) for one in names})
        assert torch.equal(declared(X), observed(X))


def test_templates_come_back():
    model = Net().eval()
    mutator = mutator_of(model, {"type": "SequentialMutableChannelUnit", "default_args": {"divisor": 2}})
    mutator.set_choices(dict(zip(NAMES, (4, 6), strict=True)))
    for with_channels in (False, True):
        template = mutator.config_template(with_unit_init_args=True, with_channels=with_channels)
        assert template["type"] == "ChannelMutator"
        assert template["channel_unit_cfg"]["units"][NAMES[1]]["choice"] == 6
        assert template["channel_unit_cfg"]["units"][NAMES[1]]["init_args"]["divisor"] == 2
        read = json.loads(json.dumps(template))
        kept = copy.deepcopy(read)
        again = ChannelMutator(read["channel_unit_cfg"], read["parse_cfg"])
        other = Net().eval()
        again.prepare_from_supernet(other)
        assert read == kept
        assert again.current_choices == mutator.current_choices == mutator.choice_template
        assert torch.equal(other(X), model(X))
        found = again.config_template(with_unit_init_args=True, with_channels=with_channels)
        assert found["channel_unit_cfg"] == template["channel_unit_cfg"]


def test_a_template_is_a_subnet(tmp_path):
    model = Net().eval()
    model.mutator = mutator_of(model)
    model.mutator.set_choices(dict(zip(NAMES, (3, 7), strict=True)))
    for with_channels in (False, True):
        subnet, static = export_fix_subnet(model, "mutator", slice_weight=True, export_channel=with_channels)
        (tmp_path / "subnet.json").write_text(json.dumps(subnet))
        for given in (subnet, str(tmp_path / "subnet.json")):
            other = Net().eval()
            load_fix_subnet(other, given, "mutator")
            assert torch.equal(other(X), model(X))
            assert torch.equal(static(X), model(X))
            assert [type(one) for one in other.modules()] == [type(one) for one in Net().modules()]
            assert other.stem.weight.shape == (3, 3, 3, 3)
            assert "held_mutables" not in vars(other)
    with pytest.raises(ConfigError, match="needs 'channel_unit_cfg'"):
        load_fix_subnet(Net(), {}, "mutator")


def test_l1_subnets_come_back_with_the_channels_that_were_kept():
    model = Net().eval()
    model.mutator = mutator_of(model, L1MutableChannelUnit)
    model.mutator.set_choices(dict(zip(NAMES, (3, 7), strict=True)))
    subnet, _ = export_fix_subnet(model, "mutator")
    kept = model.mutator.units[0].mutable_channel.active_index()
    assert kept.tolist() != [0, 1, 2]
    other = Net().eval()
    with torch.no_grad():
        other.stem.weight.zero_()  # so that a ranking of today would keep others
        other.stem.weight[kept] = model.state_dict()["stem.weight"][kept]
        other.stem.weight[(set(range(8)) - set(kept.tolist())).pop()] = 9
    load_fix_subnet(other, json.loads(json.dumps(subnet)), "mutator")
    assert torch.equal(other(X), model(X))


def test_units_may_come_from_a_file_and_from_declared_mutables(tmp_path):
    units = {NAMES[1]: {"init_args": {"num_channels": 16, "divisor": 8}, "choice": 8}}
    (tmp_path / "units.yaml").write_text(yaml.safe_dump(units))
    model = Net().eval()
    mutator = mutator_of(model, {"type": "SequentialMutableChannelUnit", "units": str(tmp_path / "units.yaml")})
    assert mutator.current_choices == {NAMES[0]: 8, NAMES[1]: 8}
    assert mutator.name2unit[NAMES[1]].choices == [8, 16]
    first, second, width = DynamicConv2d(3, 8, 1), DynamicConv2d(8, 2, 1), OneShotMutableChannel(8, [2, 8])
    first.register_mutable_attr("out_channels", width)
    second.register_mutable_attr("in_channels", width)
    declared = nn.Sequential(first, second)
    mutator = ChannelMutator(OneShotMutableChannelUnit, {"type": "Predefined"})
    mutator.prepare_from_supernet(declared)
    assert mutator.space.names == ("0_(0, 8)_8",)  # the mutable belongs to its unit
    mutator.set_choices({"0_(0, 8)_8": 2})
    assert torch.equal(export(declared)(X), declared(X))
    assert export(declared)[1].in_channels == 2


def test_slimmable_units_come_from_their_candidates():
    units = {
        NAMES[0]: {"init_args": {"candidate_choices": [2, 8]}},
        NAMES[1]: {"init_args": {"candidate_choices": [4, 16]}},
    }
    model = Net()
    mutator = mutator_of(model, {"type": SlimmableChannelUnit, "units": units})
    mutator.set_min_choices()
    model.train()(X)
    model.eval()
    subnet = export(model)
    assert torch.equal(subnet(X), model(X))
    assert list(subnet.state_dict()) == list(Net().state_dict())
    assert subnet.norm.num_features == 2
    assert float(model.norm._buffers["running_mean"].abs().sum()) == 0  # the full width has its own


def test_sampling_fixing_and_copies():
    model = Net().eval()
    mutator = mutator_of(model)
    assert set(mutator.sample_choices()) == set(NAMES)
    assert mutator.sample_choices("max") == {NAMES[0]: 8, NAMES[1]: 16}
    with pytest.raises(AssertionError, match="no kind 'other'"):
        mutator.sample_choices("other")
    copied = copy.deepcopy(model)
    mutator.set_min_choices()
    assert copied.stem.out_channels == 8
    Mutator(copied).set_choices({NAMES[0]: 5, NAMES[1]: 16})
    assert (copied.stem.out_channels, model.stem.out_channels) == (5, 1)
    mutator.fix_channel_mutables()
    with pytest.raises(FixedError):
        mutator.units[0].fix_chosen(4)


def test_configs_are_checked():
    assert ChannelMutator[SequentialMutableChannelUnit] is ChannelMutator
    with pytest.raises(AssertionError, match="parse_cfg has no type 'Other'"):
        ChannelMutator(parse_cfg={"type": "Other"})
    with pytest.raises(ConfigError, match="no unit class 'L2MutableChannelUnit'; did you mean 'L1MutableChannelUnit'"):
        ChannelMutator("L2MutableChannelUnit")
    with pytest.raises(ConfigError, match="no file"):
        ChannelMutator({"type": "L1MutableChannelUnit", "units": "nowhere.json"})
    with pytest.raises(ConfigError, match="has a method analyze"):
        ChannelMutator(parse_cfg=3)
    with pytest.raises(ValueError, match="has no channels"):
        ChannelMutator({"units": {"a": {"init_args": {"num_channels": 4}}}}, {"type": "Config"}).prepare_from_supernet(
            Net()
        )
    with pytest.raises(SpaceError, match=r"names 'stem', which is no unit; allowed: 'stem_\(0, 8\)_8'"):
        mutator_of(Net(), {"units": {"stem": {}}})
