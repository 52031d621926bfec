"""Models that were written without this library in mind, with a few choices put in."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from mutorch import Mutator, export
from mutorch.mutables import DerivedMutable, MutableValue, OneShotMutableOP, OneShotMutableValue
from mutorch.testing import check_export

generator = torch.Generator().manual_seed(0)


class Transformer(nn.Module):
    """Pre-norm blocks with a choice of attention, activation, depth and of a mask; tied embedding and output."""

    def __init__(self, width=8, tokens=11):
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.depth = OneShotMutableValue([1, 2, 3])
        self.window = MutableValue([2, 4])
        self.blocks = nn.ModuleList(self._block(width) for _ in range(3))
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embed.weight

    @staticmethod
    def _block(width):
        heads = {f"heads{n}": nn.MultiheadAttention(width, n, batch_first=True) for n in (1, 2, 4)}
        acts = OneShotMutableOP({"gelu": nn.GELU(), "silu": nn.SiLU()}, alias="act")
        return nn.ModuleDict(
            {
                "norm": nn.LayerNorm(width),
                "attention": OneShotMutableOP(heads),
                "mlp": nn.Sequential(
                    nn.LayerNorm(width), nn.Linear(width, 16), acts, nn.Dropout(0.1), nn.Linear(16, width)
                ),
            }
        )

    def forward(self, tokens, *, causal=True):
        x = self.embed(tokens)
        length = tokens.shape[1]
        distance = torch.arange(length)[:, None] - torch.arange(length)
        mask = (distance < 0) | (distance >= self.window.current_choice) if causal else None
        weights = []
        for block in self.blocks[: self.depth.current_choice]:
            y = block["norm"](x)
            attended, weight = block["attention"](y, y, y, attn_mask=mask, need_weights=True)
            weights.append(weight)
            x = x + attended
            x = x + block["mlp"](x)
        return {"logits": self.head(x), "weights": weights}


class Recurrent(nn.Module):
    """A recurrent cell of a chosen kind and length of input; LSTM and GRU give different states."""

    def __init__(self):
        super().__init__()
        cells = {"lstm": nn.LSTM(3, 4, batch_first=True), "gru": nn.GRU(3, 4, num_layers=2, batch_first=True)}
        self.cell = OneShotMutableOP(cells)
        self.skip = MutableValue([1, 2])

    def forward(self, x, state=None):
        out, state = self.cell(x[:, :: self.skip.current_choice], state)
        hidden = state[0] if isinstance(state, tuple) else state
        return out, hidden[-1]


class Skips(nn.Module):
    """An encoder and decoder with skip connections, a stride that the decoder follows, and early exits."""

    def __init__(self):
        super().__init__()
        self.depth = MutableValue([1, 2], default_value=2)
        self.stride = MutableValue([1, 2])
        self.down = nn.ModuleList(self._conv() for _ in range(2))
        self.up = nn.ModuleList(self._conv(16, "nearest") for _ in range(2))
        self.scale = DerivedMutable(lambda stride=self.stride: float(stride.current_choice))

    @staticmethod
    def _conv(channels=8, name="plain"):
        plain = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU())
        grouped = nn.Conv2d(channels, 8, 5, padding=2, groups=4)
        return OneShotMutableOP({name: plain, "grouped": grouped})

    def forward(self, x):
        skips = []
        for down in self.down[: self.depth.current_choice]:
            skips.append(x)
            x = down(x)[..., :: self.stride.current_choice, :: self.stride.current_choice]
            if x.abs().max() > 1e6:
                return x
        for up in self.up[: len(skips)]:
            skip = skips.pop()
            if self.scale.current_choice != 1:
                x = nn.functional.interpolate(x, scale_factor=self.scale.current_choice)
            x = up(torch.cat([x[..., : skip.shape[-2], : skip.shape[-1]], skip], dim=1))
        return x


class Parametrized(nn.Module):
    """Weight norm and spectral norm in candidates, and a buffer that the forward writes."""

    def __init__(self):
        super().__init__()
        self.op = OneShotMutableOP(
            {
                "weight": parametrizations.weight_norm(nn.Linear(4, 4)),
                "spectral": parametrizations.spectral_norm(nn.Linear(4, 4)),
            }
        )
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if self.training:
            self.calls += 1
        return self.op(x)


def image(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


MODELS = {
    "transformer": (Transformer, torch.randint(0, 11, (2, 6), generator=generator)),
    "recurrent": (Recurrent, image(2, 6, 3)),
    "skips": (Skips, image(1, 8, 7, 7)),
    "parametrized": (Parametrized, image(2, 4)),
    "choice at the root": (
        lambda: OneShotMutableOP({"a": nn.Linear(4, 4), "b": nn.Sequential(OneShotMutableOP({"x": nn.Tanh()}))}),
        image(2, 4),
    ),
}
models = pytest.mark.parametrize(("make", "inputs"), MODELS.values(), ids=MODELS.keys())


def build(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


@models
def test_every_export_equals_the_supernet_bit_for_bit(make, inputs):
    net = build(make)
    check_export(net, inputs, num_architectures=8)
    names = [type(m).__module__ for m in export(net, Mutator(net).space.min).modules()]
    assert not any(name.startswith("mutorch") for name in names)


@models
def test_an_export_trains_like_the_supernet(make, inputs):
    net = build(make)
    mutator = Mutator(net)
    architecture = mutator.space.sample(1)
    subnet = export(net, architecture)
    mutator.set_choices(architecture)
    losses = []
    for model in (net, subnet):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            losses.append([float(step(model.train(), inputs, optimizer)) for _ in range(4)])
    torch.testing.assert_close(losses[1], losses[0])
    assert losses[0][0] != losses[0][-1]


def step(model, inputs, optimizer):
    out = model(inputs)
    out = out["logits"] if isinstance(out, dict) else out[0] if isinstance(out, tuple) else out
    loss = (out - 1).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("name", ["transformer", "parametrized", "choice at the root"])
def test_an_export_without_control_flow_compiles_in_one_graph(name):
    make, inputs = MODELS[name]
    subnet = export(net := build(make), Mutator(net).space.default).eval()
    compiled = torch.compile(subnet, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(inputs), subnet(inputs), rtol=0, atol=0)
    torch._dynamo.reset()


def test_a_tied_head_stays_tied():
    subnet = export(net := build(Transformer), Mutator(net).space.max)
    assert subnet.head.weight is subnet.embed.weight
    assert subnet.head.weight is not net.head.weight
