import pytest
import torch
from torch import nn

from mutorch.channels import searchable, widths
from mutorch.errors import ConfigError, SpaceError
from mutorch.importance import L1, L2, BatchNormScale, Random, Taylor, rank_
from mutorch.importance.places import unit_places
from mutorch.mutators import Mutator
from mutorch.subnet import export

EVERY = [widths(counts=range(1, 65), divisor=1)]


class Heads(nn.Module):
    """Attention over 3 heads of 4."""

    def __init__(self):
        super().__init__()
        self.num_heads = 3
        self.qkv = nn.Linear(12, 36, bias=False)
        self.out = nn.Linear(12, 12, bias=False)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        y = torch.softmax(q @ k.transpose(-2, -1), dim=-1) @ v
        return self.out(y.transpose(1, 2).reshape(b, n, -1))


def two_convs():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -3.0, 2.0]).view(3, 1, 1, 1))
        model[0].bias.copy_(torch.tensor([10.0, 0.0, 0.0]))
        model[1].weight.copy_(torch.tensor([0.5, 0.1, -0.9]))
        model[3].weight.copy_(torch.tensor([[4.0, 1.0, 0.0], [3.0, -1.0, 0.0]]).view(2, 3, 1, 1))
    return model


def searchable_convs():
    return searchable(two_convs(), torch.zeros(1, 1, 2, 2), rules=EVERY)


def test_magnitudes_count_the_weights_that_make_a_channel():
    net = searchable_convs()
    assert L1()(net)["0"].tolist() == [1.0, 3.0, 2.0]
    assert torch.allclose(L2()(net)["0"], torch.tensor([1.0, 3.0, 2.0]).double())


def test_magnitudes_may_count_what_reads_and_scales_a_channel_too():
    net = searchable_convs()
    assert L1(reads=True)(net)["0"].tolist() == [8.0, 5.0, 2.0]
    assert L1(scales=True)(net)["0"].tolist() == pytest.approx([11.5, 3.1, 2.9])
    assert L2(reads=True)(net)["0"].tolist() == pytest.approx([26**0.5, 11**0.5, 2.0])


def test_per_tensor_gives_every_tensor_the_same_say():
    net = searchable_convs()
    scores = L1(reads=True, per_tensor=True)(net)["0"]
    assert scores.mean() == pytest.approx(1.0)
    with torch.no_grad():
        net[3].weight.mul_(1000)
    assert torch.allclose(L1(reads=True, per_tensor=True)(net)["0"], scores)


def test_the_score_of_a_channel_that_several_layers_make_is_of_all_of_them():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(1, 2), nn.Linear(1, 2), nn.Linear(2, 1)

        def forward(self, x):
            return self.head(self.a(x) + self.b(x))

    model = Residual()
    with torch.no_grad():
        model.a.weight.copy_(torch.tensor([[1.0], [2.0]]))
        model.b.weight.copy_(torch.tensor([[5.0], [0.0]]))
    (scores,) = L1()(searchable(model, torch.zeros(1, 1), rules=EVERY)).values()
    assert scores.tolist() == [6.0, 2.0]


def test_the_score_of_a_head_is_of_all_its_rows():
    model = Heads()
    rows = torch.zeros(3, 3, 4, 12)
    rows[:, 1] = 2.0  # head 1, in q, k and v
    rows[:, 2] = 1.0
    with torch.no_grad():
        model.qkv.weight.copy_(rows.view(36, 12))
    net = searchable(model, torch.zeros(1, 2, 12), rules=EVERY)
    scores = next(s for s in L1()(net).values() if len(s) == 3)
    assert scores.tolist() == [0.0, 3 * 4 * 12 * 2.0, 3 * 4 * 12 * 1.0]


def test_a_concatenation_gives_each_unit_its_own_positions():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(2, 3), nn.Linear(2, 4), nn.Linear(7, 1)

        def forward(self, x):
            return self.head(torch.cat([self.a(x), self.b(x)], dim=1))

    model = Joined()
    with torch.no_grad():
        model.head.weight.copy_(torch.arange(1.0, 8.0).view(1, 7))
        for layer in (model.a, model.b):
            layer.weight.zero_()
    two_or_more = [widths(counts=range(2, 5), divisor=1)]
    scores = L1(reads=True)(searchable(model, torch.zeros(1, 2), rules=two_or_more))
    assert scores["a"].tolist() == [1.0, 2.0, 3.0]
    assert scores["b"].tolist() == [4.0, 5.0, 6.0, 7.0]


def test_what_a_parameter_does_with_channels_follows_the_layer():
    model = nn.Sequential(
        nn.ConvTranspose2d(2, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 1, 1)
    )
    (places,) = unit_places(searchable(model, torch.zeros(1, 2, 2, 2), rules=EVERY)).values()
    roles = {place.where.path: place.role for place in places}
    assert roles["0.weight"] == roles["2.weight"] == "makes"
    assert roles["3.weight"] == "reads"
    assert roles["1.weight"] == roles["0.bias"] == "scales"


def test_batch_norm_scale_reads_the_norm_layer_and_falls_back_to_l2():
    assert BatchNormScale()(searchable_convs())["0"].tolist() == pytest.approx([0.5, 0.1, 0.9])
    plain = searchable(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1)), torch.zeros(1, 2), rules=EVERY)
    assert torch.equal(BatchNormScale()(plain)["0"], L2()(plain)["0"])


def test_random_scores_depend_on_the_seed_alone():
    net = searchable_convs()
    assert torch.equal(Random(1)(net)["0"], Random(1)(net)["0"])
    assert not torch.equal(Random(1)(net)["0"], Random(2)(net)["0"])


def test_taylor_scores_are_the_change_of_a_linear_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).requires_grad_(False)
    x = torch.randn(8, 3)
    net = searchable(model, x, rules=EVERY)
    scores = Taylor([x], lambda m, batch: m(batch).mean())(net)["0"]
    with torch.no_grad():
        hidden = torch.relu(model[0](x)) * model[2].weight
    assert torch.allclose(scores, hidden.mean(dim=0).abs().double(), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_taylor_without_batches_is_an_error():
    with pytest.raises(ConfigError, match="Taylor has no batches"):
        Taylor([], lambda m, batch: m(batch).mean())(searchable_convs())


def test_a_ranked_unit_keeps_its_highest_scores():
    net = searchable_convs().eval()
    x = torch.randn(2, 1, 3, 3)
    whole = net(x)
    scores = rank_(net, lambda net: {"0": torch.tensor([2, 9, 5])})
    assert scores["0"].tolist() == [2.0, 9.0, 5.0]
    assert torch.equal(net(x), whole)
    small = export(net, {"0": 2})
    assert small[0].weight.flatten().tolist() == [-3.0, 2.0]
    with Mutator(net).at({"0": 2}):
        assert torch.equal(net(x), small(x))


def test_equal_scores_keep_their_order():
    net = searchable_convs()
    rank_(net, lambda net: {"0": torch.zeros(3)})
    assert export(net, {"0": 2})[0].weight.flatten().tolist() == [1.0, -3.0]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "no scores for the unit '0'"),
        ({"0": torch.zeros(3), "00": torch.zeros(1)}, "scored '00', which is no unit; did you mean '0'"),
        ({"0": torch.zeros(4)}, r"has 3 channels, got scores of shape \(4,\)"),
        ({"0": torch.tensor([0.0, float("nan"), 1.0])}, "the score of channel 1 of unit '0' is nan"),
    ],
)
def test_wrong_scores_are_named(scores, message):
    with pytest.raises(SpaceError, match=message):
        rank_(searchable_convs(), lambda net: scores)


def test_a_model_that_is_not_searchable_cannot_be_ranked():
    with pytest.raises(SpaceError, match="Linear has no channels to rank; make it searchable first"):
        rank_(nn.Linear(2, 2), L1())
