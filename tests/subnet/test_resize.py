"""Files of cut models, loaded into the class that was cut."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from mutorch import Mutator, export, load, save, searchable, widths
from mutorch.errors import LoadError
from mutorch.subnet import read_record
from mutorch.subnet.resize import resize_

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """Convolutions with groups, a recurrent layer, attention, shared weights, sizes in attributes and in tuples."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.group_norm, self.norm = nn.GroupNorm(4, 8), nn.BatchNorm2d(8)
        self.rnn = nn.LSTM(8, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.project = nn.Linear(24, 16)
        self.layer_norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.norm(self.group_norm(self.depthwise(F.relu(self.stem(x)))))
        x = self.layer_norm(self.project(self.rnn(x.flatten(2).transpose(1, 2))[0]))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.second(self.first(x)).mean(1))
'''
namespace = {}
exec(SOURCE, namespace)
Net = namespace["Net"]
IMAGES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net():
    return searchable(Net(), IMAGES, rules=[widths(ratios=(0.5, 0.75, 1.0), divisor=1)])


@pytest.fixture(params=[".pt", ".safetensors"])
def suffix(request):
    return request.param


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_a_saved_subnet_loads_into_the_class_that_was_cut(net, tmp_path, suffix, seed):
    space = Mutator(net).space
    plain = export(net, space.min if seed is None else space.sample(seed)).eval()
    loaded = load(save(plain, tmp_path / f"net{suffix}"), Net).eval()
    assert torch.equal(loaded(IMAGES), plain(IMAGES))
    assert repr(loaded) == repr(plain)
    assert loaded.second.weight is loaded.first.weight
    assert loaded.attention.head_dim == plain.attention.head_dim
    assert type(loaded.layer_norm.normalized_shape) is tuple


def test_a_loaded_model_trains_and_is_searched_again(net, tmp_path, suffix):
    loaded = load(save(export(net, Mutator(net).space.min), tmp_path / f"net{suffix}"), Net)
    loaded(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())
    again = searchable(loaded, IMAGES, rules=[widths(ratios=(0.5, 1.0), divisor=1)])
    assert len(Mutator(again).space) > 3


def test_a_model_that_is_given_is_left_as_it_is(net, tmp_path, suffix):
    model = Net()
    loaded = load(save(export(net, Mutator(net).space.min), tmp_path / f"net{suffix}"), model)
    assert loaded is not model
    assert model.stem.out_channels == 8


def test_a_file_loads_into_the_searchable_net_that_it_came_from(net, tmp_path, suffix):
    plain = export(net, Mutator(net).space.min).eval()
    loaded = load(save(plain, tmp_path / f"net{suffix}"), net).eval()
    assert torch.equal(loaded(IMAGES), plain(IMAGES))


def test_a_file_loads_in_a_fresh_process(net, tmp_path, suffix):
    plain = export(net, Mutator(net).space.min).eval()
    path = save(plain, tmp_path / f"net{suffix}")
    torch.save({"in": IMAGES, "out": plain(IMAGES).detach()}, tmp_path / "expected.pt")
    (tmp_path / "model.py").write_text(SOURCE)
    code = f"""
        import sys, torch
        sys.path.insert(0, {str(tmp_path)!r})
        import mutorch
        from model import Net
        torch.set_num_threads(1)
        expected = torch.load({str(tmp_path / "expected.pt")!r})
        found = mutorch.load({str(path)!r}, Net).eval()(expected["in"])
        torch.testing.assert_close(found, expected["out"])
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)


def test_the_record_holds_sizes_as_plain_data(net, tmp_path, suffix):
    path = save(export(net, Mutator(net).space.min), tmp_path / f"net{suffix}")
    record = read_record(path)
    assert record["resized"]["stem"] == {"out_channels": 2}
    assert record["resized"]["layer_norm"] == {"normalized_shape": [record["resized"]["project"]["out_features"]]}


class Other(Net):
    def __init__(self):
        super().__init__()
        del self.layer_norm
        self.layer_norms = nn.LayerNorm(16)


class Wider(Net):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 1, 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Other, "was cut in 'layer_norm', which Other has not; did you mean 'layer_norms'"),
        (Wider, r"has 'stem.weight' of shape \(2, 3, 3, 3\), which is no part of the model's \(1, 3, 3, 3\)"),
    ],
)
def test_another_model_than_the_one_that_was_cut_is_an_error(net, tmp_path, suffix, model, message):
    path = save(export(net, Mutator(net).space.min), tmp_path / f"net{suffix}")
    with pytest.raises(LoadError, match=message):
        load(path, model)


def test_a_model_that_does_not_fit_is_left_as_it_is():
    model = Net()
    with pytest.raises(LoadError, match="a file has a size 'breadth' for 'stem', a Conv2d without it"):
        resize_(model, {"stem": {"out_channels": 4, "breadth": 3}}, {}, "a file")
    assert model.stem.out_channels == 8
