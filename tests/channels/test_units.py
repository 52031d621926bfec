import copy
import json
import pickle

import pytest
import torch
from torch import nn

from mutorch.channels import (
    Channel,
    ChannelAnalyzer,
    ChannelUnit,
    DCFFChannelUnit,
    DMCPChannelUnit,
    L1MutableChannelUnit,
    MutableChannelUnit,
    OneShotMutableChannelUnit,
    SequentialMutableChannelUnit,
    SlimmableChannelUnit,
    UnsupportedChannelError,
)
from mutorch.errors import ChoiceError, ConfigError, FixedError, SpaceError
from mutorch.mutables import MutableChannelContainer, OneShotMutableChannel, SequentialMutableChannel
from mutorch.ops import (
    DMCPBatchNorm2d,
    DynamicConv2d,
    DynamicLinear,
    FuseConv2d,
    SwitchableBatchNorm2d,
    static_copy,
)

UNITS = [
    SequentialMutableChannelUnit,
    OneShotMutableChannelUnit,
    SlimmableChannelUnit,
    L1MutableChannelUnit,
    DCFFChannelUnit,
    DMCPChannelUnit,
]
X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Flatten(),
        nn.Linear(8 * 16, 4),
    ).eval()


def unit_of(cls, model, **kwargs):
    """The channels of the first convolution, by hand."""
    unit = cls(8, **kwargs)
    for name in ("0", "1", "3"):
        unit.add_output_related(Channel(name, model.get_submodule(name), (0, 8)))
    for name, width in (("1", 8), ("3", 8), ("5", 128)):
        unit.add_input_related(Channel(name, model.get_submodule(name), (0, width), is_output_channel=False))
    return unit


def cut(model, kept):
    """The network with these channels, made by hand."""
    first, norm, _, depthwise, _, linear = model
    made = nn.Sequential(
        nn.Conv2d(3, len(kept), 3, padding=1),
        nn.BatchNorm2d(len(kept)),
        nn.ReLU(),
        nn.Conv2d(len(kept), len(kept), 3, groups=len(kept)),
        nn.Flatten(),
        nn.Linear(len(kept) * 16, 4),
    ).eval()
    state = {
        **{f"0.{n}": t[kept] for n, t in first.state_dict().items()},
        **{f"1.{n}": t[kept] if t.dim() else t for n, t in norm.state_dict().items()},
        **{f"3.{n}": t[kept] for n, t in depthwise.state_dict().items()},
        "5.weight": linear.weight.view(4, 8, 16)[:, kept].reshape(4, -1),
        "5.bias": linear.bias,
    }
    made.load_state_dict(state)
    return made


@pytest.mark.parametrize("cls", UNITS)
def test_a_prepared_model_keeps_its_weights_and_follows_the_unit(cls):
    plain, model = network(), network()
    module, keys = model[0], list(plain.state_dict())
    kwargs = {"candidate_choices": [4, 8]} if cls is SlimmableChannelUnit else {}
    unit = unit_of(cls, model, **kwargs)
    unit.prepare_for_pruning(model)
    assert model[0] is module  # converted where it stands
    assert [key for key in model.state_dict() if "candidate_bn" not in key] == keys
    assert torch.equal(model(X), plain(X))
    assert unit.is_mutable
    unit.current_choice = 0.5 if unit.choice_mode == "ratio" else 4
    kept = unit.mutable_channel.active_index()
    assert len(kept) == 4
    assert torch.allclose(model(X), cut(plain, kept)(X), atol=1e-6)
    exported = static_copy(model)
    assert torch.equal(exported(X), model(X))
    assert [type(one) for one in exported.modules()] == [type(one) for one in plain.modules()]


@pytest.mark.parametrize("cls", UNITS)
def test_a_unit_comes_back_from_its_config(cls):
    model = network()
    mode = "ratio" if cls is OneShotMutableChannelUnit else "number"
    unit = unit_of(cls, model, choice_mode=mode, divisor=4, min_value=4, min_ratio=0.5)
    if cls not in (SlimmableChannelUnit, OneShotMutableChannelUnit):
        unit.current_choice = 4
    template = json.loads(json.dumps(unit.config_template(with_init_args=True, with_channels=True)))
    before = copy.deepcopy(template)
    again = cls.init_from_cfg(network(), template)
    assert template == before
    assert again.config_template(with_init_args=True, with_channels=True) == template
    assert (again.name, again.current_choice) == (unit.name, unit.current_choice) == ("0_(0, 8)_8", unit.current_choice)
    assert again.output_related[0].module is not None
    alone = cls.init_from_cfg(None, unit.config_template(with_init_args=True))
    assert alone.config_template(with_init_args=True) == unit.config_template(with_init_args=True)


def test_unit_configs_are_checked():
    with pytest.raises(ConfigError, match="init_args with num_channels"):
        ChannelUnit.init_from_cfg(None, {"choice": 4})
    with pytest.raises(ConfigError, match="a channel needs name"):
        Channel.init_from_cfg(None, {"start": 0, "end": 4})
    unit = ChannelUnit.init_from_cfg(
        None, {"init_args": {"num_channels": 4}, "channels": {"output_related": [{"name": "a", "expand_ratio": 1}]}}
    )
    assert unit.output_related[0].index == (0, 4)


def test_sides_are_checked_and_channels_listed_once():
    unit, channel = ChannelUnit(4), Channel("a", None, (0, 4))
    for _ in range(2):
        unit.add_output_related(channel)
    assert len(unit.output_related) == 1
    with pytest.raises(AssertionError, match="is not input_related"):
        unit.add_input_related(channel)
    assert ChannelUnit(3).name == "unitx_3"
    unit.name = "stem"
    assert unit.name == "stem"
    assert SequentialMutableChannelUnit.init_from_channel_unit(unit, {"divisor": 2}).name == "stem"


def test_choices_are_rounded_and_checked():
    unit = SequentialMutableChannelUnit(48, divisor=8)
    for choice, count in ((20, 24), (0.3, 16), (48, 48), (1.0, 48)):
        unit.current_choice = choice
        assert unit.current_choice == count
    ratio = SequentialMutableChannelUnit(48, "ratio", divisor=8)
    ratio.current_choice = 0.3
    assert ratio.current_choice == 1 / 3
    ratio.current_choice = 24
    assert ratio.current_choice == 0.5
    for choice in (0, 100, 49, 0.0, 1.5, "a"):
        with pytest.raises(ChoiceError, match="has no choice"):
            unit.current_choice = choice
    odd = SequentialMutableChannelUnit(20, divisor=8)
    assert odd.choices == [8, 16, 20]
    assert all(odd.sample_choice(seed) in odd.choices for seed in range(10))


def test_candidates_are_rounded_and_kept_once():
    assert OneShotMutableChannelUnit(48, [20, 30, 40], "number", divisor=8).choices == [24, 32, 40]
    assert OneShotMutableChannelUnit(48, [0.3, 0.5, 0.7], divisor=8).choices == [1 / 3, 0.5, 2 / 3]
    assert OneShotMutableChannelUnit(48, [20, 24], "number", divisor=8).choices == [24]
    assert OneShotMutableChannelUnit(16).choices == [0.5, 1.0]
    assert SlimmableChannelUnit(16).choices == [16]
    assert SlimmableChannelUnit(16, choice_mode="ratio").choices == [1.0]
    for wrong, mode in ([0.5], "number"), ([8], "ratio"):
        with pytest.raises(AssertionError, match=f"candidates in choice_mode '{mode}'"):
            OneShotMutableChannelUnit(16, wrong, mode)
    unit = OneShotMutableChannelUnit(16, [8, 16], "number")
    assert (unit.min_choice, unit.max_choice, unit.default_choice, unit.current_choice) == (8, 16, 16, 16)
    with pytest.raises(AssertionError, match="has no choice 9; allowed: 8, 16|did you mean"):
        unit.current_choice = 9


@pytest.mark.parametrize("cls", UNITS)
def test_a_fixed_unit_stays(cls):
    unit = cls(8)
    choice = unit.choices[0]
    with pytest.raises(ChoiceError):
        unit.fix_chosen(99)
    unit.fix_chosen(choice)
    assert (unit.is_fixed, unit.current_choice, list(unit.choices)) == (True, choice, [choice])
    with pytest.raises(FixedError):
        unit.fix_chosen()
    if choice != 8 and choice != 1.0:
        with pytest.raises(AttributeError, match="fixed"):
            unit.current_choice = 8 if unit.choice_mode == "number" else 1.0


def test_units_copy_and_pickle_with_their_model():
    model = network()
    unit = unit_of(SequentialMutableChannelUnit, model)
    unit.prepare_for_pruning(model)
    model.unit = unit
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        copied.unit.current_choice = 2
        assert (copied[0].out_channels, model[0].out_channels) == (2, 8)
        assert copied.unit.channels[0].module is copied[0]


def test_channels_that_do_not_fit_are_refused():
    model = network()
    for width, error in ((4, UnsupportedChannelError), (12, NotImplementedError)):
        unit = SequentialMutableChannelUnit(8)
        unit.add_output_related(Channel("0", model[0], (0, width)))
        with pytest.raises(error, match="no multiple of the 8"):
            unit.prepare_for_pruning(model)
    one, other = (unit_of(SequentialMutableChannelUnit, model) for _ in range(2))
    one.prepare_for_pruning(model)
    with pytest.raises(ChoiceError, match="decided by .* already"):
        other.prepare_for_pruning(model)
    assert SequentialMutableChannelUnit(8).is_mutable is False


# ---- units of a declared model -----------------------------------------------------------------------------------------


def declared():
    first, second, last = DynamicConv2d(3, 8, 1), DynamicConv2d(3, 4, 1), DynamicLinear(12, 2)
    a, b = OneShotMutableChannel(8, [4, 8]), OneShotMutableChannel(4, [1, 4])
    first.register_mutable_attr("out_channels", a)
    second.register_mutable_attr("out_channels", b.derive_same_mutable())
    container = MutableChannelContainer(12)
    container.register_mutable(a, 0, 8)
    container.register_mutable(b, 8, 12)
    last.register_mutable_attr("in_channels", container)
    return nn.ModuleDict({"first": first, "second": second, "last": last}), a, b


def test_declared_mutables_become_units():
    model, a, b = declared()
    units = OneShotMutableChannelUnit.init_from_predefined_model(model)
    assert [unit.name for unit in units] == ["first_(0, 8)_8", "second_(0, 4)_4"]
    assert [unit.mutable_channel for unit in units] == [a, b]
    assert [unit.choices for unit in units] == [[4, 8], [1, 4]]
    assert units[1].input_related == [Channel("last", model["last"], (8, 12), is_output_channel=False)]
    units[0].prepare_for_pruning(model)
    assert units[0].current_choice == 8
    units[0].current_choice = 4
    assert (model["first"].out_channels, model["last"].in_features) == (4, 8)
    summed = a.derive_concat_mutable([a, b])
    model["last"].register_mutable_attr("in_features", summed)
    with pytest.raises(SpaceError, match="come from one mutable, not from 2"):
        OneShotMutableChannelUnit.init_from_predefined_model(model)


def test_a_unit_around_a_mutable_has_its_choices():
    ratio = OneShotMutableChannel(9, [0.33, 1.0], "ratio")
    unit = OneShotMutableChannelUnit.init_from_mutable_channel(ratio)
    assert (unit.choices, unit.mutable_channel) == ([0.33, 1.0], ratio)
    sequential = SequentialMutableChannelUnit.init_from_mutable_channel(SequentialMutableChannel(4, "ratio"))
    assert sequential.choices == [0.25, 0.5, 0.75, 1.0]
    assert issubclass(SequentialMutableChannelUnit, MutableChannelUnit)


# ---- the kinds ---------------------------------------------------------------------------------------------------------


def test_l1_units_keep_the_channels_with_the_largest_weights():
    model = network()
    unit = unit_of(L1MutableChannelUnit, model)
    unit.prepare_for_pruning(model)
    weights = [model.state_dict()[name].flatten(1).abs().mean(1) for name in ("0.weight", "3.weight")]
    expected = (weights[0] + weights[1]).argsort(descending=True)[:3].sort().values
    unit.current_choice = 3
    assert torch.equal(unit.mutable_channel.active_index(), expected)
    with torch.no_grad():
        for module in (model[0], model[3]):
            dict(module.named_parameters())["weight"][int(expected[0])] = 0
    config = unit.config_template(with_init_args=True, with_channels=True)
    again = L1MutableChannelUnit.init_from_cfg(network(), config)
    unit.current_choice = 3
    assert int(expected[0]) not in unit.mutable_channel.active_index()
    assert torch.equal(again.mutable_channel.active_index(), expected)  # those that were kept
    assert len(unit.rank()) == 8


def test_the_l1_norm_of_every_kind_of_layer():
    unit = L1MutableChannelUnit(4)
    for module in (
        nn.Conv3d(3, 8, 3),
        nn.Conv1d(4, 8, 1, groups=2),
        nn.ConvTranspose2d(4, 8, 2, groups=2),
        nn.Linear(3, 8),
    ):
        assert unit._get_l1_norm(module, 0, 8).shape == (8,)
    assert unit._get_l1_norm(nn.Linear(3, 8), 2, 5).shape == (3,)
    transposed = nn.ConvTranspose2d(4, 8, 1, groups=2)
    found = unit._get_l1_norm(transposed, 0, 8)
    assert torch.allclose(found[5], transposed.weight[2:, 1].abs().mean())


def test_slimmable_units_have_a_norm_for_each_width():
    model = network()
    unit = unit_of(SlimmableChannelUnit, model, candidate_choices=[2, 4, 8])
    unit.prepare_for_pruning(model)
    assert isinstance(model[1], SwitchableBatchNorm2d)
    assert list(model[1].candidate_bn) == ["2", "4"]
    unit.alter_candidates_of_switchbn([2])  # filled already
    assert list(model[1].candidate_bn) == ["2", "4"]


def test_a_norm_over_several_slimmable_units_has_their_sums():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 4, 1)
            self.norm, self.last = nn.BatchNorm2d(12), nn.Conv2d(12, 2, 1)

        def forward(self, x):
            return self.last(self.norm(torch.cat([self.a(x), self.b(x)], 1)))

    model = Joined()
    units = SlimmableChannelUnit.init_from_channel_analyzer(model, ChannelAnalyzer((1, 3, 4, 4)))
    assert [unit.name for unit in units] == ["a_(0, 8)_8", "b_(0, 4)_4"]
    for unit, choices in zip(units, ([2, 8], [1, 4]), strict=True):
        made = SlimmableChannelUnit.init_from_channel_unit(unit, {"candidate_choices": choices})
        made.prepare_for_pruning(model)
        made.current_choice = choices[0]
    assert list(model.norm.candidate_bn) == ["3"]
    assert model(X).shape == (2, 2, 6, 6)
    assert model.norm.num_features == 3


def test_dcff_and_dmcp_units_convert_to_their_ops():
    model = network()
    unit_of(DCFFChannelUnit, model).prepare_for_pruning(model)
    assert isinstance(model[0], FuseConv2d)
    model = network()
    unit = unit_of(DMCPChannelUnit, model)
    unit.prepare_for_pruning(model)
    assert isinstance(model[1], DMCPBatchNorm2d)
    assert unit.mutable_channel.activated_tensor_channels is None
    assert (unit.min_ratio, DCFFChannelUnit(4).choice_mode) == (0.5, "ratio")
