"""One small network for each rule: what may be removed, what follows, and what stays."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mutorch
from mutorch.channels import EmptySpaceError, register_label_rule, report, widths
from mutorch.channels.searchable import SEARCH
from mutorch.errors import RegistryError

RULES = [widths(ratios=(0.5, 1.0), divisor=1)]


class Network(nn.Module):
    """Layers by name, and a forward that is given."""

    def __init__(self, forward, layers):
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs):
        return self.run(self, *inputs)


def searched(forward, x, **layers):
    torch.manual_seed(0)
    network = Network(forward, {name: make() for name, make in layers.items()})
    return mutorch.searchable(network, x, rules=RULES)


def units(net):
    return {unit.name: unit.num_channels for unit in net.__dict__[SEARCH].units}


def reasons(net):
    return [f"{place.path}: {why}" for place, why in net.__dict__[SEARCH].structure.frozen]


def linear(inputs, outputs):
    return lambda: nn.Linear(inputs, outputs)


def conv(inputs, outputs, **options):
    return lambda: nn.Conv2d(inputs, outputs, 1, **options)


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


IMAGE = drawn(2, 3, 4, 4)
VECTOR = drawn(2, 5)
TOKENS = drawn(2, 4, 5)


@dataclass(frozen=True)
class Case:
    """`forward(net, x)` of a network with `layers`, and the units that it has, by name."""

    x: object
    layers: dict
    forward: object
    units: dict


FC = {"a": linear(5, 8), "b": linear(8, 3)}
PAIR = {"a": linear(5, 8), "other": linear(5, 8), "b": linear(8, 3)}
IMAGES = {"a": conv(3, 8), "b": conv(8, 3)}

CASES = {
    # products
    "a layer feeds a layer": Case(VECTOR, FC, lambda n, x: n.b(n.a(x)), {"a": 8}),
    "without a batch": Case(drawn(5), FC, lambda n, x: n.b(n.a(x)), {"a": 8}),
    "matmul": Case(VECTOR, FC, lambda n, x: n.a(x) @ n.b.weight.t(), {"a": 8}),
    "baddbmm": Case(
        TOKENS,
        FC,
        lambda n, x: torch.baddbmm(n.b.bias.expand(2, 4, -1), n.a(x), n.b.weight.t().expand(2, -1, -1)),
        {"a": 8},
    ),
    "a vector times a matrix": Case(drawn(5), FC, lambda n, x: n.b.weight.mv(n.a(x)), {"a": 8}),
    "a dot product": Case(drawn(5), PAIR, lambda n, x: n.a(x).dot(n.other(x)) + n.b(n.a(x)), {"a": 8}),
    "einsum": Case(TOKENS, FC, lambda n, x: torch.einsum("nlc,dc->nld", n.a(x), n.b.weight), {"a": 8}),
    "bilinear": Case(
        VECTOR,
        {"a": linear(5, 8), "c": linear(5, 6), "b": lambda: nn.Bilinear(8, 6, 3)},
        lambda n, x: n.b(n.a(x), n.c(x)),
        {"a": 8, "c": 6},
    ),
    "a convolution": Case(IMAGE, IMAGES, lambda n, x: n.b(n.a(x)), {"a": 8}),
    "a grouped convolution": Case(
        IMAGE,
        {"a": conv(3, 8), "g": conv(8, 12, groups=4), "b": conv(12, 3)},
        lambda n, x: n.b(n.g(n.a(x))),
        {"a": 2, "g.groups": 4, "g": 3},
    ),
    "a depthwise convolution": Case(
        IMAGE,
        {"a": conv(3, 8), "g": conv(8, 8, groups=8), "b": conv(8, 3)},
        lambda n, x: n.b(n.g(n.a(x))),
        {"a": 8},
    ),
    "a transposed convolution": Case(
        IMAGE,
        {"a": conv(3, 8), "t": lambda: nn.ConvTranspose2d(8, 6, 2, 2), "b": conv(6, 3)},
        lambda n, x: n.b(n.t(n.a(x))),
        {"a": 8, "t": 6},
    ),
    "a grouped transposed convolution": Case(
        IMAGE,
        {"a": conv(3, 8), "t": lambda: nn.ConvTranspose2d(8, 12, 2, 2, groups=4), "b": conv(12, 3)},
        lambda n, x: n.b(n.t(n.a(x))),
        {"t.groups": 4, "a": 2, "t": 3},
    ),
    "an embedding": Case(
        torch.zeros(2, 4, dtype=torch.int64),
        {"a": lambda: nn.Embedding(9, 8), "b": linear(8, 3)},
        lambda n, x: n.b(n.a(x)),
        {"a": 8},
    ),
    "a bag of embeddings": Case(
        torch.zeros(2, 4, dtype=torch.int64),
        {"a": lambda: nn.EmbeddingBag(9, 8), "b": linear(8, 3)},
        lambda n, x: n.b(n.a(x)),
        {"a": 8},
    ),
    "an embedding of bounded length": Case(
        torch.zeros(2, 4, dtype=torch.int64),
        {"a": lambda: nn.Embedding(9, 8, max_norm=1.0), "b": linear(8, 3)},
        lambda n, x: n.b(n.a(x)),
        {"a": 8},
    ),
    "a weight norm": Case(
        VECTOR,
        {"a": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, 8)), "b": linear(8, 3)},
        lambda n, x: n.b(n.a(x)),
        {"a.bias": 8},
    ),
    # norms
    "batch norm": Case(
        IMAGE, {**IMAGES, "norm": lambda: nn.BatchNorm2d(8)}, lambda n, x: n.b(n.norm(n.a(x))), {"a": 8}
    ),
    "layer norm": Case(TOKENS, {**FC, "norm": lambda: nn.LayerNorm(8)}, lambda n, x: n.b(n.norm(n.a(x))), {"a": 8}),
    "rms norm": Case(TOKENS, {**FC, "norm": lambda: nn.RMSNorm(8)}, lambda n, x: n.b(n.norm(n.a(x))), {"a": 8}),
    "instance norm": Case(
        IMAGE, {**IMAGES, "norm": lambda: nn.InstanceNorm2d(8, affine=True)}, lambda n, x: n.b(n.norm(n.a(x))), {"a": 8}
    ),
    "group norm": Case(
        IMAGE,
        {**IMAGES, "norm": lambda: nn.GroupNorm(2, 8)},
        lambda n, x: n.b(n.norm(n.a(x))),
        {"a": 4, "norm.num_groups": 2},
    ),
    "group norm of one channel each": Case(
        IMAGE, {**IMAGES, "norm": lambda: nn.GroupNorm(8, 8)}, lambda n, x: n.b(n.norm(n.a(x))), {"a": 8}
    ),
    # elementwise
    "a sum": Case(VECTOR, PAIR, lambda n, x: n.b(n.a(x) + n.other(x)), {"a": 8}),
    "a sum in place": Case(VECTOR, PAIR, lambda n, x: n.b(n.a(x).add_(n.other(x))), {"a": 8}),
    "an activation in place": Case(VECTOR, FC, lambda n, x: n.b(F.relu_(n.a(x))), {"a": 8}),
    "a product with a gate of one": Case(
        VECTOR, {**FC, "gate": linear(5, 1)}, lambda n, x: n.b(n.a(x) * n.gate(x)), {"a": 8}
    ),
    "one slope for each channel": Case(
        IMAGE, {**IMAGES, "act": lambda: nn.PReLU(8)}, lambda n, x: n.b(n.act(n.a(x))), {"a": 8}
    ),
    "where": Case(VECTOR, PAIR, lambda n, x: n.b(torch.where(n.a(x) > 0, n.a(x), n.other(x))), {"a": 8}),
    "lerp": Case(VECTOR, PAIR, lambda n, x: n.b(n.a(x).lerp(n.other(x), 0.3)), {"a": 8}),
    "clamp": Case(VECTOR, FC, lambda n, x: n.b(n.a(x).clamp(0, 6)), {"a": 8}),
    "masked fill": Case(VECTOR, FC, lambda n, x: n.b(n.a(x).masked_fill(n.a(x) < 0, 0.0)), {"a": 8}),
    # movement
    "flatten": Case(IMAGE, {"a": conv(3, 8), "b": linear(128, 3)}, lambda n, x: n.b(n.a(x).flatten(1)), {"a": 8}),
    "a view by sizes": Case(
        IMAGE, {"a": conv(3, 8), "b": linear(128, 3)}, lambda n, x: n.b(n.a(x).view(x.size(0), -1)), {"a": 8}
    ),
    "permute": Case(
        IMAGE, {"a": conv(3, 8), "b": linear(8, 3)}, lambda n, x: n.b(n.a(x).permute(0, 2, 3, 1)), {"a": 8}
    ),
    "transpose": Case(
        TOKENS, {"a": linear(5, 8), "b": lambda: nn.Conv1d(8, 3, 1)}, lambda n, x: n.b(n.a(x).mT), {"a": 8}
    ),
    "unsqueeze and squeeze": Case(
        VECTOR, FC, lambda n, x: n.b(n.a(x)[:, None].unsqueeze(-1).squeeze(-1).squeeze(1)), {"a": 8}
    ),
    "concatenation": Case(
        VECTOR,
        {"a": linear(5, 8), "c": linear(5, 6), "b": linear(14, 3)},
        lambda n, x: n.b(torch.cat([n.a(x), n.c(x)], dim=-1)),
        {"a": 8, "c": 6},
    ),
    "stack": Case(VECTOR, PAIR, lambda n, x: n.b(torch.stack([n.a(x), n.other(x)], dim=1)).sum(1), {"a": 8}),
    "chunk": Case(
        VECTOR,
        {"a": linear(5, 16), "b": linear(8, 3)},
        lambda n, x: n.b(torch.mul(*n.a(x).chunk(2, dim=-1))),
        {"a": 8},
    ),
    "halves by slices": Case(
        VECTOR,
        {"a": linear(5, 16), "b": linear(8, 3)},
        lambda n, x: (lambda y: n.b(y[:, : y.size(1) // 2] * y[:, y.size(1) // 2 :]))(n.a(x)),
        {"a": 8},
    ),
    "a gated linear unit": Case(
        VECTOR, {"a": linear(5, 16), "b": linear(8, 3)}, lambda n, x: n.b(F.glu(n.a(x))), {"a": 8}
    ),
    "expand": Case(VECTOR, FC, lambda n, x: n.b(n.a(x)[:, None].expand(-1, 6, -1)).sum(1), {"a": 8}),
    "repeat": Case(VECTOR, {"a": linear(5, 8), "b": linear(16, 3)}, lambda n, x: n.b(n.a(x).repeat(1, 2)), {"a": 8}),
    "repeat interleave": Case(
        VECTOR, {"a": linear(5, 8), "b": linear(16, 3)}, lambda n, x: n.b(n.a(x).repeat_interleave(2, 1)), {"a": 8}
    ),
    "flip": Case(VECTOR, FC, lambda n, x: n.b(n.a(x).flip(0)), {"a": 8}),
    "roll of positions": Case(IMAGE, IMAGES, lambda n, x: n.b(torch.roll(n.a(x), (1, 1), (2, 3))), {"a": 8}),
    "padding of positions": Case(IMAGE, IMAGES, lambda n, x: n.b(F.pad(n.a(x), (1, 1, 1, 1))), {"a": 8}),
    "reflection of positions": Case(
        IMAGE, IMAGES, lambda n, x: n.b(F.pad(n.a(x), (1, 1, 1, 1), mode="reflect")), {"a": 8}
    ),
    "channels padded with zeros": Case(
        IMAGE, {"a": conv(3, 8), "b": conv(12, 3)}, lambda n, x: n.b(F.pad(n.a(x), (0, 0, 0, 0, 2, 2))), {"a": 8}
    ),
    "pixel shuffle": Case(
        IMAGE, {"a": conv(3, 16), "b": conv(4, 3)}, lambda n, x: n.b(F.pixel_shuffle(n.a(x), 2)), {"a": 4}
    ),
    "pixel unshuffle": Case(
        IMAGE, {"a": conv(3, 8), "b": conv(32, 3)}, lambda n, x: n.b(F.pixel_unshuffle(n.a(x), 2)), {"a": 8}
    ),
    "unfold": Case(
        IMAGE, {"a": conv(3, 8), "b": lambda: nn.Conv1d(32, 3, 1)}, lambda n, x: n.b(F.unfold(n.a(x), 2)), {"a": 8}
    ),
    "fold": Case(
        IMAGE,
        {"a": lambda: nn.Conv1d(3, 32, 1), "b": conv(8, 3)},
        lambda n, x: n.b(F.fold(n.a(x.flatten(2)[:, :, :9]), 4, 2)),
        {"a": 8},
    ),
    # reductions and pooling
    "mean of positions": Case(
        IMAGE, {"a": conv(3, 8), "b": linear(8, 3)}, lambda n, x: n.b(n.a(x).mean((2, 3))), {"a": 8}
    ),
    "mean of channels": Case(IMAGE, IMAGES, lambda n, x: n.b(n.a(x) - n.a(x).mean(1, keepdim=True)), {"a": 8}),
    "pooling": Case(IMAGE, IMAGES, lambda n, x: n.b(F.max_pool2d(n.a(x), 2)), {"a": 8}),
    "adaptive pooling": Case(IMAGE, IMAGES, lambda n, x: n.b(F.adaptive_avg_pool2d(n.a(x), 1)), {"a": 8}),
    "resampling": Case(IMAGE, IMAGES, lambda n, x: n.b(F.interpolate(n.a(x), scale_factor=2.0)), {"a": 8}),
    "softmax over channels": Case(VECTOR, FC, lambda n, x: n.b(n.a(x).softmax(-1)), {"a": 8}),
    "length of a vector": Case(
        VECTOR, FC, lambda n, x: n.b(n.a(x) / torch.linalg.vector_norm(n.a(x), dim=1, keepdim=True)), {"a": 8}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_units_are_what_can_be_removed(name):
    case = CASES[name]
    net = searched(case.forward, case.x, **case.layers)
    assert units(net) == case.units
    assert not any("a narrower model fails" in why for why in reasons(net))
    assert not net.__dict__[SEARCH].observer.unknown
    mutorch.check(net, n=2)


FROZEN = {
    "a sort": (FC, lambda n, x: n.b(n.a(x).sort(-1)[0]), "a sort"),
    "a cumulative sum": (FC, lambda n, x: n.b(n.a(x).cumsum(-1)), "a cumulative sum"),
    "the largest": (
        {"a": linear(5, 8), "b": linear(4, 3)},
        lambda n, x: n.b(n.a(x).topk(4)[0]),
        "the choice of the largest",
    ),
    "log softmax": (FC, lambda n, x: n.b(n.a(x).log_softmax(-1)), "a softmax"),
    "argmax": (FC, lambda n, x: n.b(n.a(x)) * n.a(x).argmax(-1, keepdim=True), "tells positions apart"),
    "one channel": (FC, lambda n, x: n.b(n.a(x)) * n.a(x)[:, :1], "a slice between fixed numbers"),
    "an index": (FC, lambda n, x: n.b(n.a(x)) + n.a(x)[:, 3, None], "the choice of one position"),
    "indices": (
        {"a": linear(5, 8), "b": linear(2, 3)},
        lambda n, x: n.b(n.a(x)[:, torch.tensor([1, 3])]),
        "indices that are fixed",
    ),
    "every second channel": (
        {"a": linear(5, 8), "b": linear(4, 3)},
        lambda n, x: n.b(n.a(x)[:, ::2]),
        "a slice with a step",
    ),
    "a roll of channels": (FC, lambda n, x: n.b(n.a(x).roll(1, -1)), "a roll by a fixed number"),
    "a view by numbers": (
        {"a": linear(5, 8), "b": linear(2, 3)},
        lambda n, x: n.b(n.a(x).view(2, 4, 2)),
        "the number . in view",
    ),
    "a constant": (FC, lambda n, x: n.b(n.a(x) + torch.arange(8.0)), "tied to what is constant, by an elementwise"),
    "an input": (FC, lambda n, x: n.b(n.a(x) + F.pad(x, (0, 3))), "tied to what is constant, by an elementwise"),
    "a mask from the data": (FC, lambda n, x: n.b(n.a(x)) + n.a(x)[n.a(x) > 0].sum(), "a mask that is fixed"),
    "an output": (FC, lambda n, x: (n.b(n.a(x)), n.a(x)), "feeds the model's output"),
    "a split by numbers": (
        {"a": linear(5, 8), "b": linear(8, 3)},
        lambda n, x: n.b(torch.cat(n.a(x).split([6, 2], -1)[::-1], -1)),
        "the number 6 in split",
    ),
}


@pytest.mark.parametrize("name", FROZEN)
def test_channels_that_something_counts_on_stay_and_the_reason_is_told(name):
    layers, forward, why = FROZEN[name]
    with pytest.raises(EmptySpaceError, match=why):
        searched(forward, VECTOR, **layers)


# ---- operations without a rule -----------------------------------------------------------------------------------------


@torch.library.custom_op("mutorch_tests::untaught", mutates_args=())
def untaught(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@torch.library.custom_op("mutorch_tests::taught", mutates_args=())
def taught(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def test_an_operation_without_a_rule_freezes_what_it_touches_and_is_reported_with_module_and_count():
    layers = {"a": linear(5, 8), "free": linear(3, 6), "b": linear(8, 3), "c": linear(6, 3)}
    net = searched(lambda n, x: n.c(n.free(n.b(untaught(n.a(x))))), VECTOR, **layers)
    found = report(net)
    assert found.unknown == {("mutorch_tests.untaught", ""): 8}
    assert "no rule for 'mutorch_tests.untaught' in '': 8 channels stay" in str(found)
    told = "operation 'mutorch_tests.untaught' has no label rule (teach it with register_label_rule)"
    assert f"a.weight: {told} in the model's own forward" in reasons(net)
    assert units(net) == {"b": 3, "free": 6}


def test_an_operation_that_was_taught_is_searched_through():
    register_label_rule("mutorch_tests.taught", lambda observer, args, kwargs, out: observer.labels(args[0]))
    net = searched(lambda n, x: n.b(taught(n.a(x))), VECTOR, **FC)
    assert units(net) == {"a": 8}
    assert not report(net).unknown
    with pytest.raises(RegistryError, match="'mutorch_tests.taught' has a label rule already"):
        register_label_rule("mutorch_tests.taught", lambda observer, args, kwargs, out: None)


def test_a_rule_of_the_library_cannot_be_replaced():
    with pytest.raises(RegistryError, match="'aten.mm' has a label rule already"):
        register_label_rule("aten.mm", lambda observer, args, kwargs, out: None)
