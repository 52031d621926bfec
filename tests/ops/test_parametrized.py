import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from mutorch import CostTable, Mutator, count, export, load, save, searchable
from mutorch.channels.searchable import SEARCH
from mutorch.errors import ChoiceError
from mutorch.mutables import DerivedMutable, MutableValue, OneShotMutableOP, OneShotMutableValue, Require, ValueChoice
from mutorch.ops import layer, set_execution_
from mutorch.ops.dynamic import STATE, cut
from mutorch.space import random_at
from mutorch.testing import check_export


def conv_net():
    channels, kernel = ValueChoice([1, 2, 3], label="c"), ValueChoice([3, 5, 7], label="k")
    return nn.Sequential(
        layer(nn.Conv2d, 3, 8 * channels, kernel, padding=kernel // 2),
        layer(nn.BatchNorm2d, 8 * channels),
        nn.ReLU(),
        layer(nn.Conv2d, 8 * channels, 8 * channels, 3, groups=8 * channels),
        layer(nn.Dropout, ValueChoice([0.1, 0.5], label="p")),
        layer(nn.ConvTranspose2d, 8 * channels, 4, ValueChoice([2, 4], label="t"), stride=2),
    )


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        width, heads = ValueChoice([16, 32], label="d"), ValueChoice([2, 4], label="h")
        self.embed = layer(nn.Embedding, 20, width)
        self.attention = layer(nn.MultiheadAttention, width, heads, batch_first=True)
        self.norm = layer(nn.LayerNorm, width)
        self.block = layer(nn.TransformerEncoderLayer, width, heads, dim_feedforward=2 * width, batch_first=True)
        self.lstm = layer(nn.LSTM, width, ValueChoice([8, 12]), num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x):
        x = self.embed(x)
        x = self.norm(x + self.attention(x, x, x)[0])
        return self.lstm(self.block(x))[0]


IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def at(net, number):
    mutator = Mutator(net)
    mutator.set_choices(mutator.space.sample(random_at(number, "at")))
    return export(net)


def gradients(net, x):
    net.zero_grad()
    net(x).square().sum().backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def test_plain_arguments_build_the_plain_layer():
    assert type(layer(nn.Conv2d, 3, 8, kernel_size=(3, 3))) is nn.Conv2d


@pytest.mark.parametrize(
    ("build", "x"),
    [(conv_net, IMAGES), (Encoder, torch.arange(12).view(2, 6))],
    ids=["convolutions", "attention and recurrence"],
)
def test_exported_layers_compute_what_the_searchable_ones_compute(build, x):
    torch.manual_seed(0)
    check_export(build().eval(), x, num_architectures=15)


def test_the_exported_layer_is_what_the_class_builds():
    net = conv_net()
    plain = export(net, {"c": 2, "k": 5, "p": 0.5, "t": 2})
    assert repr(plain[0]) == repr(nn.Conv2d(3, 16, 5, padding=2))
    assert repr(plain[3]) == repr(nn.Conv2d(16, 16, 3, groups=16))
    assert (type(plain[4]), plain[4].p) == (nn.Dropout, 0.5)
    assert set(vars(plain[0])) == set(vars(nn.Conv2d(3, 16, 5)))


def test_the_first_channels_and_the_middle_of_the_kernel_are_active():
    width, kernel = ValueChoice([4, 8]), ValueChoice([3, 5])
    conv = layer(nn.Conv2d, 3, width, kernel)
    whole = conv._parameters["weight"]
    assert whole.shape == (8, 3, 5, 5)
    assert torch.equal(conv.weight, whole[:4, :, 1:4, 1:4])


def test_kernels_are_as_large_as_needed_along_each_axis():
    kernel = ValueChoice([(1, 7), (3, 3)])
    conv = layer(nn.Conv2d, 2, 2, kernel)
    whole = conv._parameters["weight"]
    assert whole.shape == (2, 2, 3, 7)
    assert torch.equal(conv.weight, whole[:, :, 1:2])
    kernel.current_choice = (3, 3)
    assert torch.equal(conv.weight, whole[:, :, :, 2:5])


def test_queries_keys_and_values_each_give_their_first_rows():
    attention = layer(nn.MultiheadAttention, ValueChoice([2, 4]), 2)
    whole = attention._parameters["in_proj_weight"]
    assert torch.equal(attention.in_proj_weight, whole[[0, 1, 4, 5, 8, 9]][:, :2])
    assert attention.out_proj.weight.shape == (2, 2)


def test_more_groups_are_smaller_weights():
    channels, groups = ValueChoice([16, 32]), ValueChoice([4, 2, 1])
    conv = layer(nn.Conv2d, channels, 32, 1, groups=groups)
    assert conv._parameters["weight"].shape == (32, 32, 1, 1)
    assert conv.weight.shape == (32, 4, 1, 1)
    assert conv(torch.zeros(1, 16, 2, 2)).shape == (1, 32, 2, 2)


def test_a_bias_may_be_a_choice():
    linear = layer(nn.Linear, 4, 2, bias=ValueChoice([False, True], label="bias"))
    net = nn.Sequential(linear)
    assert linear.bias is None
    assert list(export(net).state_dict()) == ["0.weight"]
    Mutator(net).set_choices({"bias": True})
    assert torch.equal(linear.bias, linear._parameters["bias"])
    check_export(net, torch.ones(1, 4))


def test_values_of_the_older_library_decide_too():
    width = OneShotMutableValue([8, 16])
    net = nn.Sequential(
        layer(nn.Linear, 4, width * 2),
        layer(nn.Linear, DerivedMutable(choice_fn=lambda: width.current_choice * 2, source_mutables=[width]), 1),
    )
    assert Mutator(net).space.names == ("0.out_features",)
    check_export(net, torch.ones(1, 4))


class Gate(nn.Module):
    """A class of a user's, with a parameter, attributes and sub-modules of all kinds."""

    def __init__(self, width, activation="relu", *, config=None):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width))
        self.scale = nn.Parameter(torch.rand(width))
        self.config = {"width": width, **(config or {})}
        self.activation = getattr(functional, activation)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.5, width)]
        self.register_buffer("seen", torch.zeros(width))

    def forward(self, x):
        return self.activation(self.inner(x) * self.scale)[..., : self.config["width"]] + self.rates[-1] + self.seen


def test_a_class_of_the_users_follows_with_all_its_attributes_and_sub_modules():
    net = nn.Sequential(layer(Gate, ValueChoice([3, 6]), ValueChoice(["relu", "gelu"]), config={"a": 1}))
    mutator = Mutator(net)
    assert mutator.space.names == ("0.width", "0.activation")
    mutator.set_choices({"0.width": 6, "0.activation": "gelu"})
    assert (net[0].config, net[0].activation) == ({"width": 6, "a": 1}, functional.gelu)
    assert isinstance(net[0], Gate)
    check_export(net, torch.ones(2, 4), num_architectures=8)
    plain = export(net)
    plain[0].config["width"] = 0
    assert net[0].config["width"] == 6  # the exported model has its own


def test_choices_are_named_by_label_else_by_the_place_where_they_stand_first():
    named, unnamed = ValueChoice([1, 2], label="c"), ValueChoice([3, 5])
    net = nn.Sequential(
        layer(nn.Conv2d, 8 * named, 8, (unnamed, ValueChoice([1, 3]))),
        layer(nn.Conv2d, 8, 8 * ValueChoice([1, 2], label="c"), unnamed),
    )
    mutator = Mutator(net)
    assert mutator.space.names == ("c", "0.kernel_size.0", "0.kernel_size.1")
    mutator.set_choices({"c": 2, "0.kernel_size.0": 5, "0.kernel_size.1": 1})
    assert (net[0].in_channels, net[1].out_channels, net[1].kernel_size) == (16, 16, (5, 5))


def test_a_copy_follows_the_copied_choices():
    net = conv_net().eval()
    other = copy.deepcopy(net)
    plain = at(other, 1)
    assert torch.equal(other(IMAGES), plain(IMAGES))
    assert net[0].weight.shape == (8, 3, 3, 3)


def test_a_pickled_net_computes_the_same_at_all_choices():
    net = conv_net().eval()
    again = pickle.loads(pickle.dumps(net))
    for number in range(4):
        at(net, number), at(again, number)
        assert torch.equal(net(IMAGES), again(IMAGES))


def test_weights_of_the_largest_plain_net_load():
    net = conv_net()
    plain = nn.Sequential(
        nn.Conv2d(3, 24, 7, padding=3), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 24, 3, groups=24)
    )
    plain.extend([nn.Dropout(), nn.ConvTranspose2d(24, 4, 4, stride=2)])
    net.load_state_dict(plain.state_dict())
    assert list(net.state_dict()) == list(plain.state_dict())
    Mutator(net).set_max_choices()
    assert torch.equal(net.eval()(IMAGES), plain.eval()(IMAGES))
    other = conv_net()
    other.load_state_dict(net.state_dict())
    Mutator(other).set_max_choices()
    assert torch.equal(other.eval()(IMAGES), plain(IMAGES))


def test_the_same_seed_makes_the_weights_of_the_largest_plain_layer():
    torch.manual_seed(3)
    mine = layer(nn.Linear, 4, ValueChoice([2, 8]))
    torch.manual_seed(3)
    assert torch.equal(mine._parameters["weight"], nn.Linear(4, 8).weight)


def test_training_statistics_go_into_the_first_entries():
    norm = layer(nn.BatchNorm1d, ValueChoice([2, 4]))
    norm(torch.randn(8, 2) + 5)
    assert (norm._buffers["running_mean"][:2] > 0.3).all()
    assert torch.equal(norm._buffers["running_mean"][2:], torch.zeros(2))
    assert norm._buffers["num_batches_tracked"] == 1


def test_an_optimizer_trains_what_is_active():
    linear = layer(nn.Linear, 3, ValueChoice([2, 4]))
    before = linear._parameters["weight"].detach().clone()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1)
    linear(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    changed = (linear._parameters["weight"] != before).any(1)
    assert changed.tolist() == [True, True, False, False]


def test_a_moved_net_computes_in_its_new_type():
    net = conv_net().double().eval()
    assert net(IMAGES.double()).dtype == torch.float64
    check_export(net, IMAGES.double())


def test_a_compiled_net_follows_its_choices():
    width = ValueChoice([2, 4])
    net = nn.Sequential(layer(nn.Linear, 3, width), nn.ReLU())
    compiled = torch.compile(net, backend="eager")
    for choice in (2, 4, 2):
        width.current_choice = choice
        assert torch.equal(compiled(torch.ones(1, 3)), net(torch.ones(1, 3)))
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(torch.compile(again, backend="eager")(torch.ones(1, 3)), net(torch.ones(1, 3)))


def test_an_exported_file_loads_into_the_searchable_and_into_the_largest_net(tmp_path):
    architecture = {"c": 2, "k": 5, "p": 0.5, "t": 2}
    net = conv_net().eval()
    plain = export(net, architecture)
    path = save(plain, tmp_path / "net.safetensors")
    assert torch.equal(load(path, conv_net).eval()(IMAGES), plain(IMAGES))
    largest = export(net, Mutator(net).space.max)
    loaded = load(path, largest).eval()
    assert torch.equal(loaded(IMAGES), plain(IMAGES))
    assert repr(loaded) == repr(plain)


def test_layers_in_a_model_that_is_made_searchable_stay_as_they_are():
    channels = ValueChoice([1, 2], label="c")
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.ReLU(),
        layer(nn.Conv2d, 16, 8 * channels, 3),
        nn.ReLU(),
        layer(nn.Conv2d, 8 * channels, 16, 1),
        nn.Conv2d(16, 16, 3),
        nn.Conv2d(16, 4, 1),
    )
    found = searchable(net, IMAGES)
    assert Mutator(found).space.names == ("5", "c")
    assert ("2", "its own arguments are searched for") in {
        (place.module, reason) for place, reason in vars(found)[SEARCH].structure.frozen
    }
    check_export(found.eval(), IMAGES, num_architectures=8)


def test_layers_in_candidates_matter_where_the_candidate_is_chosen():
    net = OneShotMutableOP({"a": layer(nn.Linear, 2, 2, bias=ValueChoice([True, False])), "b": nn.Identity()})
    space = Mutator(nn.Sequential(net)).space
    assert space["0._candidates.a.bias"].when == (("0", "a"),)


def test_layers_may_be_handed_to_classes_of_torch():
    width = ValueChoice([8, 16], label="d")
    inner = layer(nn.TransformerEncoderLayer, width, 2, dim_feedforward=2 * width, batch_first=True)
    net = nn.Sequential(layer(nn.Linear, 4, width), nn.TransformerEncoder(inner, 2)).eval()
    check_export(net, torch.randn(2, 5, 4))
    with pytest.raises(
        ChoiceError, match=r"TransformerEncoder\(TransformerEncoderLayer\(...\), 1\) .* first 'layers.1'"
    ):
        layer(nn.TransformerEncoder, export(nn.Sequential(inner))[0], ValueChoice([1, 2]))
    with pytest.raises(ChoiceError, match=r"'layers.0.self_attn', a DynamicMultiheadAttention, follows"):
        layer(nn.TransformerEncoder, inner, ValueChoice([1, 2]))


def test_layers_are_built_and_read_on_the_meta_device():
    width = ValueChoice([8, 16], label="d")
    with torch.device("meta"):
        net = nn.Sequential(layer(nn.Linear, 4, width), layer(nn.BatchNorm1d, width), layer(nn.LSTM, width, width))
        assert net(torch.zeros(2, 4))[0].shape == (2, 8)
    assert export(net)[2].weight_ih_l0.is_meta


# ---- what cannot be --------------------------------------------------------------------------------------------------


class Many(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(number))


class Positions(nn.Module):
    def __init__(self, length):
        super().__init__()
        self.register_buffer("places", torch.arange(length).flip(0))
        self.weight = nn.Parameter(torch.zeros(length))


class Loose(nn.Module):
    def __init__(self, length):
        super().__init__()
        self.places = torch.zeros(length)


class Closing(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.run = lambda x: self.linear(x) * width


class Around(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = layer(nn.Linear, width, ValueChoice([1, 2]))


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Many, r"Many has no largest layer.*Many\(3\) is no part of Many\(4\): it has other modules, first 'layers.3'"),
        (Positions, r"Positions\(3\) is no part of the largest Positions: the buffer 'places' is computed from"),
        (Loose, r"Loose\(3\) cannot be built: Loose holds a tensor in 'places' that is no buffer"),
        (Closing, r"Closing holds modules in 'run', in something that differs from choice to choice"),
        (Around, r"Around\(3\) cannot be built: 'linear', a DynamicLinear, follows choices itself"),
        (nn.LazyLinear, r"LazyLinear\(3\) cannot be built: .* parameter without a size yet, 'weight'"),
    ],
)
def test_a_class_that_cannot_follow_says_why(cls, message):
    with pytest.raises(ChoiceError, match=message):
        layer(cls, ValueChoice([3, 4]))


def test_choices_that_build_nothing_are_named_with_the_cause():
    with pytest.raises(
        ChoiceError,
        match=r"MultiheadAttention\(16, 3\) cannot be built: .*divisible by num_heads; .*num_heads=ValueChoice",
    ):
        Mutator(nn.Sequential(layer(nn.MultiheadAttention, 16, ValueChoice([2, 3]))))


def test_choices_that_build_nothing_may_be_ruled_out():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.width, self.heads = ValueChoice([12, 24, 32]), ValueChoice([3, 8])
            self.embed = layer(nn.Linear, 4, self.width)
            self.attention = layer(nn.MultiheadAttention, self.width, self.heads, batch_first=True)
            self.rule = Require((self.width % self.heads).eq(0))

        def forward(self, x):
            x = self.embed(x)
            return self.attention(x, x, x, need_weights=False)[0].mean(-1)

    net, x = Attention().eval(), torch.ones(2, 3, 4)
    mutator = Mutator(net)
    assert mutator.space.size == 4
    table = CostTable.from_model(mutator, x)
    for architecture in mutator.space.grid():
        mutator.set_choices(architecture)
        exported = export(net)
        assert torch.equal(exported(x), net(x))
        assert table(architecture).params == count(exported, x).params


def test_of_many_combinations_the_wrong_ones_are_named_when_they_are_made():
    width, heads = ValueChoice(list(range(8, 88, 4))), ValueChoice([1, 2, 4, 8])
    attention = layer(nn.MultiheadAttention, width, heads)
    width.current_choice, heads.current_choice = 12, 4
    assert attention.head_dim == 3
    heads.current_choice = 8
    with pytest.raises(ChoiceError, match=r"MultiheadAttention\(12, 8\) cannot be built"):
        _ = attention.head_dim


def test_zeros_cannot_stand_for_what_the_arguments_decide():
    with pytest.raises(ChoiceError, match="'0', a DynamicConv2d, has mutables as arguments"):
        set_execution_(conv_net(), "mask")


# ---- any stack -------------------------------------------------------------------------------------------------------


@st.composite
def stacks(draw):
    """Convolutions, norms, depthwise convolutions and linear layers, whose channels fit."""
    made, channels, names = [], 3, iter("abcdefghijklmnopqrstuvwxyz")

    def value(*choices):
        kind = draw(st.sampled_from([ValueChoice, MutableValue]))
        name = next(names)
        return kind(list(choices), label=name) if kind is ValueChoice else kind(list(choices), alias=name)

    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "norm", "depthwise", "transposed", "linear", "dropout"]))
        if kind == "conv":
            kernel, width = value(1, 3, 5), value(2, 3, 4) * 2
            padding = DerivedMutable(choice_fn=Half(kernel), source_mutables=[kernel])
            made.append(layer(nn.Conv2d, channels, width, kernel, padding=padding, bias=draw(st.booleans())))
            channels = width
        elif kind == "norm":
            made.append(layer(nn.BatchNorm2d, channels, momentum=value(0.1, 0.3)))
        elif kind == "depthwise":
            made.append(layer(nn.Conv2d, channels, channels, value(1, 3), padding=1, groups=channels))
        elif kind == "transposed":
            width = value(2, 6)
            made.append(layer(nn.ConvTranspose2d, channels, width, value(2, 3), stride=value(1, 2)))
            channels = width
        elif kind == "linear":
            width = value(3, 5)
            made += [_Last(), layer(nn.Linear, channels, width), _Last()]
            channels = width
        else:
            made.append(layer(nn.Dropout, value(0.1, 0.2)))
    return nn.Sequential(*made, layer(nn.Conv2d, channels, 2, value(1, 2)))


class Half:
    def __init__(self, kernel):
        self.kernel = kernel

    def __call__(self):
        return self.kernel.current_choice // 2


def active(net, name, whole):
    """The active part of a tensor that is as large as a parameter."""
    path, _, own = name.rpartition(".")
    state = vars(net.get_submodule(path)).get(STATE)
    return whole if state is None else cut(whole, state.tensors.get(own, ()))


class _Last(nn.Module):
    """The channels at the end, and back."""

    def forward(self, x):
        return x.transpose(1, -1)


@given(stacks(), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_any_stack_computes_forward_and_backward_what_its_export_computes(net, number):
    plain = at(net.eval(), number)
    with torch.no_grad():
        assert torch.equal(net(IMAGES), plain(IMAGES))
    mine, other = gradients(net, IMAGES), gradients(plain, IMAGES)
    for name, gradient in other.items():
        torch.testing.assert_close(active(net, name, mine[name]), gradient)
        assert mine[name].count_nonzero() == active(net, name, mine[name]).count_nonzero()
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    net.load_state_dict(torch.load(buffer, weights_only=True))
    for again in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        with torch.no_grad():
            assert torch.equal(again(IMAGES), plain(IMAGES))


@given(stacks(), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_any_stack_trains_the_statistics_that_its_export_trains(net, number):
    plain = at(net.eval(), number)
    for module in (*net, *plain):
        module.train(isinstance(module, nn.BatchNorm2d))
    with torch.no_grad():
        assert torch.equal(net(IMAGES), plain(IMAGES))
    again = export(net)
    for name, buffer in plain.named_buffers():
        assert torch.equal(dict(again.named_buffers())[name], buffer)
