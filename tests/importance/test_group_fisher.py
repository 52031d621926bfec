import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutorch.channels import searchable, widths
from mutorch.errors import ConfigError
from mutorch.importance import GroupFisher, MaskGradients, rank_
from mutorch.importance.places import unit_places
from mutorch.mutators import Mutator
from mutorch.subnet import export

EVERY = [widths(counts=range(1, 65), divisor=1)]


class Residual(nn.Module):
    """A stem and a block that share their channels, a depthwise layer, and one unit inside the block."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.one = nn.Conv2d(6, 5, 3, padding=1)
        self.two = nn.Conv2d(5, 6, 1)
        self.deep = nn.Conv2d(6, 6, 3, groups=6)
        self.last = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.two(torch.tanh(self.one(x))))
        x = torch.relu(self.last(torch.relu(self.deep(x))))
        return self.head(x.mean(dim=(2, 3)))


class Attention(nn.Module):
    """Heads, and layers over tokens that come before samples."""

    def __init__(self):
        super().__init__()
        self.num_heads = 2
        self.qkv = nn.Linear(6, 18)
        self.out = nn.Linear(6, 6)
        self.mlp = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        y = torch.softmax(q @ k.transpose(-2, -1), dim=-1) @ v
        x = self.out(y.transpose(1, 2).reshape(b, n, -1))
        return self.mlp(x.transpose(0, 1)).mean(dim=0)  # samples second


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def scaled(net, unit, channel, factor):
    """The net's weights that read a channel, times a factor, for a while."""
    for place in unit_places(net)[unit]:
        if place.role == "reads":
            rows = torch.zeros(place.num_channels)
            rows[channel] = 1
            ((positions, channels),) = place._positions
            index = positions[channels == channel]
            place.parameter.data.index_copy_(
                place.where.dim, index, place.parameter.data.index_select(place.where.dim, index) * factor
            )


def by_differences(net, batch, step=1e-4):
    """The mean over samples of the squared central difference of each sample's loss, channel after channel."""
    inputs, labels = batch
    found = {}
    with torch.no_grad():
        for name, places in unit_places(net).items():
            scores = torch.zeros(places[0].num_channels, dtype=torch.float64)
            for channel in range(len(scores)):
                values = []
                for factor in (1 + step, 1 - step):
                    scaled(net, name, channel, factor)
                    values.append(F.cross_entropy(net(inputs), labels, reduction="none"))
                    scaled(net, name, channel, 1 / factor)
                scores[channel] = ((values[0] - values[1]) / (2 * step)).pow(2).mean()
            found[name] = scores
    return found


@pytest.fixture
def residual():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Residual().double()
        x, y = torch.randn(6, 2, 7, 7, dtype=torch.float64), torch.randint(3, (6,))
    return searchable(model, x, rules=EVERY).eval(), (x, y)


def test_scores_are_the_squared_slopes_of_the_loss_along_a_mask_of_each_channel(residual):
    net, batch = residual
    scores = GroupFisher([batch], loss, normalise=None)(net)
    expected = by_differences(net, batch)
    assert scores.keys() == expected.keys()
    assert {"stem", "one", "last"} <= scores.keys()
    for name, score in scores.items():
        assert torch.allclose(score, expected[name], rtol=1e-5, atol=1e-12), name


def test_taking_a_channel_away_changes_each_loss_by_its_slope_to_first_order(residual):
    net, (x, y) = residual
    gradients = MaskGradients(net)
    small = 0.01
    with torch.no_grad():
        net.head.weight.mul_(small)  # so that the loss is almost linear in what it is taken of
    with gradients.watching():
        F.cross_entropy(net(x), y, reduction="sum").backward()
        found = gradients.take(len(x))["last"]
    with torch.no_grad():
        whole = F.cross_entropy(net(x), y, reduction="none")
        for channel in range(4):
            kept = net.head.weight.clone()
            net.head.weight.data[:, channel] = 0
            without = F.cross_entropy(net(x), y, reduction="none")
            net.head.weight.data.copy_(kept)
            assert torch.allclose(whole - without, found[:, channel], rtol=0.02, atol=1e-6)


def test_a_batch_and_its_samples_one_by_one_give_the_same_scores(residual):
    net, (x, y) = residual
    together = GroupFisher([(x, y)], loss)(net)
    alone = GroupFisher([(x[i : i + 1], y[i : i + 1]) for i in range(len(x))], loss)(net)
    for name, scores in together.items():
        assert torch.allclose(scores, alone[name], rtol=1e-6)


def test_the_sum_over_layers_comes_before_the_square():
    class Doubled(nn.Module):
        """Two layers read the same channels, and the second takes away what the first gives."""

        def __init__(self):
            super().__init__()
            self.one, self.a, self.b = nn.Linear(2, 3), nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)

        def forward(self, x):
            x = self.one(x)
            return self.a(x) + self.b(x)

    model = Doubled()
    with torch.no_grad():
        model.b.weight.copy_(-model.a.weight)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    net = searchable(model, x, rules=EVERY)
    scores = GroupFisher([x], lambda m, batch: m(batch).mean(), normalise=None)(net)
    assert scores["one"].abs().max() < 1e-12


def test_units_that_a_batch_does_not_tell_apart_are_scored_sample_by_sample():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x, y = Attention(), torch.randn(3, 3, 6), torch.randint(2, (3,))  # as many tokens as samples
    net = searchable(model, x, rules=EVERY)
    asked = []

    def counted(model, batch):
        asked.append(len(batch[1]))
        return loss(model, batch)

    together = GroupFisher([(x, y)], counted, normalise=None)(net)
    assert asked == [3, 1, 1, 1, 1]  # the batch, its first sample to compare, and every sample for what differs
    alone = GroupFisher([(x[i : i + 1], y[i : i + 1]) for i in range(3)], loss, normalise=None)(net)
    for name, scores in together.items():
        assert torch.allclose(scores, alone[name], rtol=1e-4, atol=1e-12), name


def test_scores_are_divided_by_what_a_channel_costs(residual):
    net, batch = residual
    plain, by_macs, by_memory = (GroupFisher([batch], loss, normalise=n)(net) for n in (None, "macs", "memory"))
    # One channel of `one` is 6 * 9 multiply-adds a pixel where it is made, and 6 where it is read.
    assert torch.allclose(plain["one"] / by_macs["one"], torch.tensor(49.0 * (54 + 6) * 6).double())
    # Of each sample the activations before and after tanh, of 8 bytes.
    assert torch.allclose(plain["one"] / by_memory["one"], torch.tensor(6 * 2 * 49.0 * 8 / 1e6).double())


def test_it_ranks_and_leaves_the_model_as_it_was(residual):
    net, (x, y) = residual
    net.train()
    net.stem.requires_grad_(False)
    mutator = Mutator(net)
    with torch.no_grad():
        before = net(x)
    scores = rank_(net, GroupFisher([(x, y)], loss))
    assert mutator.current_choices == mutator.space.default
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.training
    assert not net.stem.weight.requires_grad
    with torch.no_grad():
        assert torch.equal(net(x), before)
    small = export(net, {**mutator.space.default, "one": 2})
    kept = sorted(scores["one"].argsort(descending=True)[:2].tolist())
    assert torch.equal(small.one.weight, net.one.weight[kept])


def test_masks_of_a_narrower_model_have_zeros_for_channels_that_are_gone(residual):
    net, (x, y) = residual
    rank_(net, lambda net: {name: torch.arange(float(p[0].num_channels)) for name, p in unit_places(net).items()})
    gradients = MaskGradients(net)
    mutator = Mutator(net)
    with mutator.at({**mutator.space.default, "one": 2, "stem": 4}), gradients.watching():
        loss(net, (x, y)).backward()
        found = gradients.take(len(x))
        plain = export(net)
    assert (found["one"][:, :3] == 0).all()
    assert (found["one"][:, 3:] != 0).any()
    again = searchable(plain, x, rules=EVERY).eval()
    others = MaskGradients(again)
    with others.watching():
        loss(again, (x, y)).backward()
        expected = others.take(len(x))
    assert torch.allclose(found["one"][:, 3:], expected["one"])
    assert torch.allclose(found["stem"][:, 2:], expected["stem"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda batch: GroupFisher([], loss), "GroupFisher has no batches"),
        (lambda batch: GroupFisher([(batch[0], batch[1][:2])], loss), r"have sizes \[2, 6\]"),
        (lambda batch: GroupFisher([batch], loss, normalise="mac"), "got 'mac'; did you mean 'macs'"),
    ],
)
def test_what_cannot_be_scored_is_an_error(residual, make, message):
    net, batch = residual
    with pytest.raises(ConfigError, match=message):
        make(batch)(net)
