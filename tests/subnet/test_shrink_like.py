import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mutorch import Mutator, export, searchable, shrink_like, widths
from mutorch.errors import LoadError


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A residual network whose widths are arguments."""

    def __init__(self, stem=8, hidden=12, feature=16):
        super().__init__()
        torch.manual_seed(stem)
        self.stem, self.norm = nn.Conv2d(3, stem, 3), nn.BatchNorm2d(stem)
        self.block = nn.Sequential(nn.Conv2d(stem, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, stem, 1))
        self.feature, self.head = nn.Linear(stem * 4, feature), nn.Linear(feature, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.adaptive_avg_pool2d(x + self.block(x), 2)
        return self.head(self.feature(x.flatten(1)))


class Attention(nn.Module):
    def __init__(self, heads=4, head_dim=4):
        super().__init__()
        torch.manual_seed(heads)
        self.num_heads, self.head_dim = heads, head_dim
        self.embed, self.qkv = nn.Linear(5, 16), nn.Linear(16, 3 * heads * head_dim)
        self.proj, self.head = nn.Linear(heads * head_dim, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        x = self.embed(x)
        q, k, v = self.qkv(x).view(n, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2).flatten(2)
        return self.head(x + self.proj(out))


IMAGES, TOKENS = drawn(2, 3, 8, 8), drawn(2, 3, 5)


@pytest.mark.parametrize("sizes", [(5, 12, 16), (8, 7, 16), (8, 12, 3), (3, 2, 1), (8, 12, 16)])
def test_the_widths_are_found_and_the_tensors_filled_in(sizes):
    small, model = Net(*sizes), Net()
    found = shrink_like(model, small.state_dict(), IMAGES)
    assert torch.equal(found.eval()(IMAGES), small.eval()(IMAGES))
    assert (found.stem.out_channels, found.block[0].out_channels, found.feature.out_features) == sizes
    assert found.head.in_features == sizes[2]


def test_the_model_is_left_as_it_is():
    model = Net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shrink_like(model, Net(5, 6, 7).state_dict(), IMAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert type(model.stem) is nn.Conv2d


def test_removed_heads_are_found():
    small = Attention(heads=2)
    found = shrink_like(Attention(), small.state_dict(), TOKENS)
    assert (found.num_heads, found.head_dim) == (2, 4)
    assert torch.equal(found(TOKENS), small(TOKENS))


def test_narrower_heads_are_found_where_the_number_of_heads_is_known():
    small = Attention(head_dim=2)
    found = shrink_like(Attention(), small.state_dict(), TOKENS, known={"num_heads": 4})
    assert (found.num_heads, found.head_dim) == (4, 2)
    assert torch.equal(found(TOKENS), small(TOKENS))


def test_what_an_export_gave_is_found_again():
    net = searchable(Net(), IMAGES, rules=[widths(ratios=(0.5, 0.75, 1.0), divisor=1)])
    plain = export(net, Mutator(net).space.sample(3)).eval()
    assert torch.equal(shrink_like(Net(), plain.state_dict(), IMAGES).eval()(IMAGES), plain(IMAGES))


def changed(state, **tensors):
    return {**state, **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"stem.weight": torch.zeros(8, 3, 3, 3)}, "the checkpoint lacks .* tensors of the model, first 'stem.bias'"),
        (
            changed(Net().state_dict(), extra=torch.zeros(1)),
            "the checkpoint has, and the model has not, 1 tensors of the checkpoint, first 'extra'",
        ),
        (
            Net(stem=9).state_dict(),
            "'.*' has size 9 along dimension 0 in the checkpoint, and 8 in the model: no number",
        ),
        (
            changed(Net().state_dict(), block__0__bias=torch.zeros(11)),
            r"has shape \(.*\) in the checkpoint, and no choice of channels of Net gives it: it would be \(",
        ),
        (
            changed(Net().state_dict(), head__weight=torch.zeros(4, 16)),
            r"'head.weight' has shape \(4, 16\) in the checkpoint, and no choice of channels of Net gives it",
        ),
        (
            changed(Net().state_dict(), head__weight=torch.zeros(4, 16, 1)),
            r"'head.weight' has shape \(4, 16, 1\) in the checkpoint",
        ),
        (
            changed(Net().state_dict(), feature__weight=torch.zeros(16, 30)),
            "'feature.weight' has s.* in the checkpoint",
        ),
    ],
    ids=["missing", "too many", "larger", "of two minds", "outputs", "dimensions", "no whole number"],
)
def test_checkpoints_that_no_pruning_gives_are_errors_with_the_tensor_and_both_shapes(state, message):
    with pytest.raises(LoadError, match=message):
        shrink_like(Net(), state, IMAGES)


def test_known_units_that_are_none_are_errors_with_the_nearest_names():
    with pytest.raises(
        LoadError, match="known names 'num_head', which is no unit of the model; did you mean 'num_heads'"
    ):
        shrink_like(Attention(), Attention(2).state_dict(), TOKENS, known={"num_head": 2})
