import copy
import pickle

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mutorch import Mutator, export
from mutorch.errors import ChoiceError, ExportError, SpaceError
from mutorch.mutables import DerivedMutable, MutableValue, OneShotMutableOP
from mutorch.subnet import record_of
from mutorch.testing import check_export
from mutorch.training import recalibrate_

X = torch.linspace(-1, 1, 6).reshape(3, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = OneShotMutableOP({"linear": nn.Linear(2, 2), "skip": nn.Identity()})
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("hidden", torch.tensor(3.0), persistent=False)
        self.times = MutableValue([1, 2])

    def forward(self, x):
        for _ in range(self.times.current_choice):
            x = self.norm(self.stem(x)) * self.scale * self.hidden
        return x


CHOSEN = {"stem": "linear", "times": 2}


def test_the_chosen_candidate_stands_where_the_block_stood():
    net = Net()
    subnet = export(net, CHOSEN)
    assert type(subnet) is Net
    assert list(subnet.state_dict()) == [
        "scale",
        "stem.weight",
        "stem.bias",
        *(f"norm.{k}" for k in net.norm.state_dict()),
    ]
    assert torch.equal(subnet.stem.weight, net.stem.candidates["linear"].weight)
    assert (type(subnet.times), subnet.times.current_choice, subnet.times.choices) == (nn.Module, 2, [1, 2])
    assert subnet.hidden == 3


def test_the_current_architecture_is_exported_unless_another_is_given():
    net = Net()
    assert isinstance(export(net).stem, nn.Linear)
    Mutator(net).set_choices({"stem": "skip", "times": 1})
    assert isinstance(export(net).stem, nn.Identity)
    assert isinstance(export(net, CHOSEN).stem, nn.Linear)
    assert net.stem.current_choice == "skip"


def test_an_export_does_not_follow_the_supernet():
    net = Net()
    subnet = export(net, CHOSEN).eval()
    expected = subnet(X)
    Mutator(net).set_choices({"stem": "skip", "times": 1})
    net.train()(X)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.zero_()
    assert torch.equal(subnet(X), expected)


def test_modes_and_frozen_parameters_are_kept():
    net = Net().eval()
    net.stem.candidates["linear"].weight.requires_grad = False
    net.norm.train()
    subnet = export(net, CHOSEN)
    assert (subnet.training, subnet.norm.training, subnet.stem.training) == (False, True, False)
    assert (subnet.stem.weight.requires_grad, subnet.stem.bias.requires_grad) == (False, True)


def test_gradients_stay_behind():
    net = Net()
    Mutator(net).set_choices(CHOSEN)
    net(X).sum().backward()
    assert all(parameter.grad is None for parameter in export(net).parameters())
    assert net.norm.weight.grad is not None


def test_an_export_remembers_what_it_was_exported_from():
    mutator = Mutator(Net())
    subnet = export(mutator.model, {"times": 2.0, "stem": "linear"})
    expected = {"architecture": CHOSEN, "space": mutator.space.fingerprint}
    assert record_of(subnet) == expected
    assert record_of(pickle.loads(pickle.dumps(subnet))) == record_of(copy.deepcopy(subnet)) == expected
    assert record_of(mutator.model) is None


@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, lambda net: torch.compile(net, backend="eager")])
def test_a_wrapped_supernet_exports_like_the_supernet(wrap):
    net = Net()
    assert list(export(wrap(net), CHOSEN).state_dict()) == list(export(net, CHOSEN).state_dict())
    assert type(export(wrap(net), CHOSEN)) is Net


def test_an_architecture_must_be_of_the_space():
    with pytest.raises(SpaceError, match="leaves 1 undecided: 'times'"):
        export(Net(), {"stem": "skip"})
    with pytest.raises(ChoiceError, match="'stem' has no choice 'lin'"):
        export(Net(), {**CHOSEN, "stem": "lin"})
    with pytest.raises(SpaceError, match="the model has no mutables"):
        export(nn.Linear(2, 2))


def test_custom_groups_are_exported_with_their_mutator():
    net = nn.Sequential(*(OneShotMutableOP({"tanh": nn.Tanh(), "relu": nn.ReLU()}) for _ in range(3)))
    mutator = Mutator(net, custom_groups={"outer": ["0", "2"]})
    subnet = export(net, {"outer": "relu", "1": "tanh"}, mutator=mutator)
    assert [type(module) for module in subnet] == [nn.ReLU, nn.Tanh, nn.ReLU]
    assert record_of(subnet)["custom_groups"] == {"outer": ["0", "2"]}
    with pytest.raises(SpaceError, match="no decision 'outer'"):
        export(net, {"outer": "relu", "1": "tanh"})
    with pytest.raises(ExportError, match="the mutator belongs to another model"):
        export(copy.deepcopy(net), {"outer": "relu", "1": "tanh"}, mutator=mutator)


# ---- what models hold besides modules --------------------------------------------------------------------------------


class KeepsThings(nn.Module):
    """Keeps references to its blocks, outputs of its last forward, and its mutator."""

    def __init__(self):
        super().__init__()
        self.block = OneShotMutableOP({"linear": nn.Linear(2, 2), "wide": nn.Linear(2, 2)})
        self.by_name = {"block": [self.block]}
        self.features, self.maps = None, []
        self.register_buffer("mean", torch.zeros(()))
        self.mutator = Mutator(self)

    def forward(self, x):
        self.features = self.by_name["block"][0](x)
        self.maps = [self.features.softmax(-1)]
        self.mean = 0.9 * self.mean + 0.1 * self.features.mean()
        return self.features


def test_references_to_a_block_become_references_to_the_chosen_candidate():
    net = KeepsThings()
    subnet = export(net, {"block": "wide"})
    assert subnet.by_name["block"][0] is subnet.block
    assert subnet.mutator is None
    assert net.mutator.model is net


def test_outputs_kept_from_a_training_forward_are_values_in_the_export():
    net = KeepsThings()
    out = net(X)
    subnet = export(net)
    assert torch.equal(subnet.features, out)
    assert [x.requires_grad for x in (subnet.features, *subnet.maps, subnet.mean)] == [False] * 3
    net.features.sum().backward()
    assert net.block.candidates["linear"].weight.grad is not None


class HoldsFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.times = times = MutableValue([1, 2])
        self.rule = lambda x: x * times.current_choice

    def forward(self, x):
        return self.rule(x)


def test_a_function_that_would_read_the_supernet_is_named():
    net = nn.Sequential(HoldsFunction())
    with pytest.raises(ExportError, match=r"'0\.rule' is a function that reads a mutable.*make it a method"):
        export(net, {"0.times": 2})


class HoldsUnregistered(nn.Module):
    def __init__(self):
        super().__init__()
        self.times = MutableValue([1, 2])
        self.width = [MutableValue([3, 4])]
        self.derived = DerivedMutable(lambda: self.width[0].current_choice, source_mutables=[self.width[0]])

    def forward(self, x):
        return x * self.times.current_choice * self.width[0].current_choice * self.derived.current_choice


def test_a_source_in_a_plain_list_is_decided_under_its_derived_value():
    net = HoldsUnregistered()
    assert Mutator(net).space.names == ("times", "derived")
    check_export(net, torch.ones(1))


def test_modules_that_know_their_static_form_are_replaced_by_it():
    class Dynamic(nn.Linear):
        def to_static_op(self):
            return nn.Linear(self.in_features, 1)

    net = nn.Sequential(OneShotMutableOP({"a": nn.Sequential(Dynamic(2, 2)), "b": nn.Linear(2, 1)}), Dynamic(1, 3))
    subnet = export(net, {"0": "a"})
    assert [type(subnet[0][0]), type(subnet[1])] == [nn.Linear, nn.Linear]
    assert subnet(X).shape == (3, 1)


def test_export_with_batches_has_batch_norm_statistics_of_its_own():
    net = nn.Sequential(OneShotMutableOP({"a": nn.Linear(2, 2), "b": nn.Identity()}), nn.BatchNorm1d(2))
    batches = [torch.randn(16, 2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    expected = export(net, {"0": "a"})
    recalibrate_(expected, batches)
    subnet = export(net, {"0": "a"}, calibrate=batches)
    assert torch.equal(subnet[1].running_mean, expected[1].running_mean)
    assert torch.equal(net[1].running_mean, torch.zeros(2))


def test_hooks_on_a_block_are_missed_with_a_warning():
    net = nn.Sequential(OneShotMutableOP({"a": nn.Linear(2, 2), "b": nn.Identity()}))
    net[0].register_forward_hook(lambda module, args, output: output + 1)
    with pytest.warns(UserWarning, match=r"the hooks on OneShotMutableOP with choices \['a', 'b'\] do not go along"):
        export(net, {"0": "a"})
