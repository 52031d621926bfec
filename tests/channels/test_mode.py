"""Zeros instead of absent channels: what mode 'mask' computes, what it cannot, and one compiled graph for everything."""

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from mutorch import Mutator, export, searchable, set_mode_, widths
from mutorch.channels import ModeError, in_mode
from mutorch.errors import SpaceError
from mutorch.ops.dynamic import dynamic_modules, whole_tensor
from mutorch.space import random_at

RULES = [widths(ratios=(0.25, 0.5, 0.75, 1.0), divisor=1)]


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class SmallCnn(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv1, self.norm1 = nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.conv2(F.relu(self.norm1(self.conv1(x))))
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, length, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class SmallTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, 16)
        self.blocks = nn.Sequential(Block(16, 4), Block(16, 2))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embedding(x))).mean(1))


IMAGES = drawn(2, 3, 8, 8)
WORDS = torch.arange(12).view(2, 6) % 11
MODELS = {"cnn": (SmallCnn, IMAGES), "transformer": (SmallTransformer, WORDS)}


@pytest.fixture(params=MODELS)
def net_and_input(request):
    model, x = MODELS[request.param]
    return searchable(model(), x, rules=RULES), x


def architectures(mutator, count):
    return [mutator.space.sample(random_at(0, "mode", number)) for number in range(count)]


def outputs_at(net, mutator, x, count, *, run=None):
    found = []
    for architecture in architectures(mutator, count):
        mutator.set_choices(architecture)
        found.append((net if run is None else run)(x).detach())
    return found


# ---- one graph ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_one_compiled_graph_serves_a_hundred_architectures(net_and_input, training):
    net, x = net_and_input
    mutator = Mutator(net)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.0  # so that one architecture does not change what the next computes
    net.train(training)
    expected = outputs_at(net, mutator, x, 100)
    set_mode_(net, "mask")
    torch._dynamo.reset()
    graphs = CompileCounterWithBackend("aot_eager" if training else "eager")
    found = outputs_at(net, mutator, x, 100, run=torch.compile(net, backend=graphs, fullgraph=True))
    assert graphs.frame_count == 1
    torch.testing.assert_close(found, expected)


def test_a_compiled_graph_trains_as_slices_do(net_and_input):
    net, x = net_and_input
    mutator = Mutator(net)

    def gradients(run):
        net.zero_grad()
        for architecture in architectures(mutator, 4):
            mutator.set_choices(architecture)
            run(x).square().sum().backward()
        return {name: p.grad.clone() for name, p in net.named_parameters()}

    net.eval()
    expected = gradients(net)
    set_mode_(net, "mask")
    torch._dynamo.reset()
    graphs = CompileCounterWithBackend("aot_eager")
    torch.testing.assert_close(gradients(torch.compile(net, backend=graphs)), expected, rtol=1e-4, atol=1e-5)
    assert graphs.frame_count == 1


def test_a_net_compiled_in_mode_slice_computes_each_architecture(net_and_input):
    net, x = net_and_input
    mutator = Mutator(net)
    expected = outputs_at(net, mutator, x, 4)
    torch._dynamo.reset()
    with torch.no_grad():
        found = outputs_at(net, mutator, x, 4, run=torch.compile(net, backend="eager", dynamic=False))
    torch.testing.assert_close(found, expected)


# ---- slices ------------------------------------------------------------------------------------------------------------


def copied(net):
    """What is not a view of the whole tensor at the smallest architecture."""
    Mutator(net).set_min_choices()
    read = {
        f"{path}.{name}": (getattr(module, name), whole_tensor(module, name))
        for path, module, state in dynamic_modules(net)
        for name in state.tensors
    }
    assert all(part.shape != whole.shape for part, whole in read.values())
    return {name for name, (part, whole) in read.items() if part.data_ptr() != whole.data_ptr()}


def test_slices_are_views_of_the_whole_weights():
    assert copied(searchable(SmallCnn(), IMAGES, rules=RULES)) == set()


def test_only_what_is_not_a_prefix_is_copied():
    net = searchable(SmallTransformer(), WORDS, rules=RULES)
    projections = {f"blocks.{number}.qkv.{name}" for number in (0, 1) for name in ("weight", "bias")}
    assert copied(net) == projections


# ---- switching ---------------------------------------------------------------------------------------------------------


def test_a_mode_stays_through_changes_of_architecture(net_and_input):
    net, x = net_and_input
    net.eval()
    mutator = Mutator(net)
    expected = outputs_at(net, mutator, x, 5)
    set_mode_(net, "mask")
    torch.testing.assert_close(outputs_at(net, mutator, x, 5), expected)
    set_mode_(net, "slice")
    torch.testing.assert_close(outputs_at(net, mutator, x, 5), expected, rtol=0, atol=0)


def test_weights_are_whole_in_mode_mask_and_zero_where_nothing_is_active(net_and_input):
    net, _ = net_and_input
    Mutator(net).set_min_choices()
    with in_mode(net, "mask"):
        assert net.head.weight.shape == (5, 16)
        assert (net.head.weight[:, 4:] == 0).all()
    assert net.head.weight.shape == (5, 4)


def test_an_error_inside_a_mode_leaves_the_mode_as_it_was(net_and_input):
    net, _ = net_and_input
    Mutator(net).set_min_choices()
    with pytest.raises(ZeroDivisionError), in_mode(net, "mask"):
        _ = 1 / 0
    assert net.head.weight.shape == (5, 4)


def test_a_net_made_under_inference_mode_trains_masked_afterwards():
    net = searchable(SmallCnn(), IMAGES, rules=RULES)
    Mutator(net).set_min_choices()
    with torch.inference_mode():
        set_mode_(net, "mask")
        net(IMAGES)
    Mutator(net).set_max_choices()
    net(IMAGES).sum().backward()
    assert net.stem.weight.shape == (16, 3, 3, 3)


def test_what_is_exported_in_mode_mask_is_cut(net_and_input):
    net, x = net_and_input
    net.eval()
    Mutator(net).set_min_choices()
    expected = net(x)
    set_mode_(net, "mask")
    plain = export(net)
    assert plain.head.weight.shape == (5, 4)
    torch.testing.assert_close(plain(x), expected)


# ---- mistakes, and what masks cannot express ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["masked", "", None])
def test_other_modes_are_errors_with_the_nearest_one(mode):
    net = searchable(SmallCnn(), IMAGES, rules=RULES)
    with pytest.raises(ModeError, match=rf"no mode {mode!r}; .*allowed: 'slice', 'mask'"):
        set_mode_(net, mode)


def test_a_model_that_is_not_searchable_has_no_modes():
    with pytest.raises(SpaceError, match="this SmallCnn is no searchable model; make one with mutorch.searchable"):
        set_mode_(SmallCnn(), "mask")


class Between(nn.Module):
    """Two layers, and an operation between them."""

    def __init__(self, operation, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, width), nn.Linear(width, 3)
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.operation(self, self.a(x)))


CANNOT = {
    "aten.amax": lambda net, x: x - x.amax(-1, keepdim=True),
    "aten.std": lambda net, x: x / (x.std(-1, keepdim=True) + 1),
    "aten.prod": lambda net, x: x + x.prod(-1, keepdim=True),
    "aten.logsumexp": lambda net, x: x - x.logsumexp(-1, keepdim=True),
}


@pytest.mark.parametrize("operation", CANNOT)
def test_what_masks_cannot_express_is_named_and_the_mode_stays(operation):
    net = searchable(nn.Sequential(Between(CANNOT[operation])), drawn(2, 4), rules=RULES)
    with pytest.raises(ModeError, match=rf"'{operation}' in '0' computes over searchable channels.*freeze=\['0'\]"):
        set_mode_(net, "mask")
    Mutator(net).set_min_choices()
    assert net[0].b.weight.shape == (3, 2)
    torch.testing.assert_close(export(net)(drawn(2, 4)), net(drawn(2, 4)))


def linear_attention(net, x):
    """Its feature map makes ones of zeros."""
    features = F.elu(x) + 1
    return (features[:, None] @ features[..., None]).squeeze(-1) * x


def test_what_only_running_both_modes_shows_is_named():
    net = searchable(nn.Sequential(nn.Identity(), Between(linear_attention)), drawn(2, 4), rules=RULES)
    with pytest.raises(ModeError, match="Sequential computes something else with zeros in place .* first in '1.b'"):
        set_mode_(net, "mask")
    Mutator(net).set_min_choices()
    torch.testing.assert_close(export(net)(drawn(2, 4)), net(drawn(2, 4)))


def by_number(net, x):
    return x - x.sum(-1, keepdim=True) / x.shape[-1]


def by_root(net, x):
    return x * x.size(-1) ** -0.5


def by_attribute(net, x):
    return x.view(x.shape[0], net.b.in_features) / net.b.in_features


@pytest.mark.parametrize(
    ("operation", "what"),
    [(by_number, "the size of a tensor"), (by_root, "the size of a tensor"), (by_attribute, "'in_features'")],
)
def test_a_size_that_becomes_a_factor_is_named(operation, what):
    net = searchable(Between(operation), drawn(2, 4), rules=RULES)
    with pytest.raises(ModeError, match=f"'' computes with {what} as a number, which counts searchable channels"):
        set_mode_(net, "mask")


def two_softmaxes(net, x):
    return x.softmax(-1) + torch.arange(16.0).view(2, 8).softmax(-1).amax(-1, keepdim=True)


def test_averages_that_cannot_be_told_apart_are_named():
    net = searchable(Between(two_softmaxes), drawn(2, 4), rules=RULES)
    with pytest.raises(ModeError, match="'' averages over several dimensions of size 8, not all of the same channels"):
        set_mode_(net, "mask")


CAN = {
    "mean": lambda net, x: x - x.mean(-1, keepdim=True),
    "mean of all": lambda net, x: x - x.mean(),
    "mean in float": lambda net, x: x - x.mean(-1, keepdim=True, dtype=torch.float32).to(x.dtype),
    "variance": lambda net, x: x * x.var(-1, keepdim=True),
    "biased variance": lambda net, x: x * x.var(-1, False, True),
    "variance of all": lambda net, x: x * x.var(),
    "biased variance of all": lambda net, x: x * torch.var(x, False),
    "corrected variance": lambda net, x: x * x.var(-1, correction=2, keepdim=True),
    "softmax": lambda net, x: x.softmax(-1),
    "softmax in float": lambda net, x: torch.softmax(x, -1, dtype=torch.float32).to(x.dtype),
    "layer norm": lambda net, x: F.layer_norm(x, (x.shape[-1],)),
    "rms norm": lambda net, x: F.rms_norm(x, (x.shape[-1],)),
    "group norm": lambda net, x: F.group_norm(x, 2),
    "sum": lambda net, x: x * x.sum(-1, keepdim=True),
    "sum of what is not zero": lambda net, x: x * x.sigmoid().sum(-1, keepdim=True),
    "sum of all": lambda net, x: x * x.exp().sum(),
    "length": lambda net, x: F.normalize(x, dim=-1),
    "attention": lambda net, x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0],
    "attention by name": lambda net, x: F.scaled_dot_product_attention(
        query=x[:, None], key=x[:, None], value=x[:, None]
    )[:, 0],
}


@pytest.mark.parametrize("operation", CAN)
def test_averages_count_the_active_channels_only(operation):
    net = searchable(Between(CAN[operation], width=12), drawn(5, 4), rules=RULES).double()
    mutator, x = Mutator(net), drawn(5, 4).double()

    def results():
        found = []
        for architecture in architectures(mutator, 4):
            mutator.set_choices(architecture)
            net.zero_grad()
            out = net(x)
            out.square().sum().backward()
            found += [out.detach(), *(p.grad.clone() for p in net.parameters())]
        return found

    expected = results()
    set_mode_(net, "mask")
    torch.testing.assert_close(results(), expected, rtol=1e-6, atol=1e-7)
