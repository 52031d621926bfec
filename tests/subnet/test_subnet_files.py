import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mutorch import Mutator, export, load, save
from mutorch.errors import ExportError, LoadError
from mutorch.mutables import MutableValue, OneShotMutableOP
from mutorch.subnet import read_record

X = torch.linspace(-1, 1, 6).reshape(3, 2)
formats = pytest.mark.parametrize("suffix", [".safetensors", ".pt"])


def build(width=2, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        op = OneShotMutableOP(
            {"linear": nn.Linear(2, width), "mlp": nn.Sequential(nn.Linear(2, 4), nn.Linear(4, width))}
        )
        return nn.Sequential(op, nn.BatchNorm1d(width), MutableValue([1, 2]))


def other_build():
    return build(seed=1)


def subnet():
    net = export(build(), {"0": "mlp", "2": 2})
    net[2] = nn.Identity()  # so that the sequence runs
    return net


@formats
def test_a_file_holds_what_is_needed_to_build_the_subnet_again(tmp_path, suffix):
    net = export(build(), {"0": "mlp", "2": 2})
    path = save(net, tmp_path / "runs" / f"net{suffix}", metrics={"top1": np.float32(0.5), "loss": torch.tensor(2)})
    record = read_record(path)
    assert record["architecture"] == {"0": "mlp", "2": 2}
    assert record["space"] == Mutator(build()).space.fingerprint
    assert record["metrics"] == {"top1": 0.5, "loss": 2.0}
    assert record["versions"]["torch"] == torch.__version__
    loaded = load(str(path), other_build)
    assert [list(loaded.state_dict()), loaded[2].current_choice] == [list(net.state_dict()), 2]
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in net.state_dict().items())


@formats
def test_a_supernet_that_is_given_stays_as_it_is(tmp_path, suffix):
    path = save(export(build(), {"0": "mlp", "2": 2}), tmp_path / f"net{suffix}")
    given = other_build()
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    load(path, given)
    assert (given[0].current_choice, given[2].current_choice) == (None, 1)
    assert all(torch.equal(given.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_plain_model_of_the_same_shape_can_be_filled(tmp_path):
    net = subnet()
    path = save(net, tmp_path / "net.pt")
    other = subnet()
    with torch.no_grad():
        other[1].weight.fill_(7)
    loaded = load(path, other)
    assert torch.equal(loaded.eval()(X), net.eval()(X))
    assert loaded is not other
    assert other[1].weight[0] == 7
    fresh = subnet()
    assert load(path, lambda: fresh) is fresh


def test_files_are_read_by_other_tools_without_running_code(tmp_path):
    net = subnet()
    tensors = load_file(save(net, tmp_path / "net.safetensors"))
    content = torch.load(save(net, tmp_path / "net.pt"), weights_only=True)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensors[name], tensor)
        assert torch.equal(content["tensors"][name], tensor)
    assert json.loads(content["mutorch"])["format"] == 1


@formats
def test_a_file_is_as_small_as_the_subnet(tmp_path, suffix):
    big = nn.Sequential(OneShotMutableOP({"big": nn.Linear(400, 400), "small": nn.Linear(400, 40)}))
    net = export(big, {"0": "small"})
    net(torch.ones(1, 400)).sum().backward()
    path = save(net, tmp_path / f"net{suffix}")
    assert path.stat().st_size < 1.1 * sum(p.numel() * 4 for p in net.parameters())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 40), nn.Linear(40, 50, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("empty", torch.zeros(0))
        self.register_buffer("empty_too", torch.zeros(0))
        self.register_buffer("rows", torch.arange(6.0).reshape(2, 3).T)


@formats
def test_shared_tensors_are_written_once_and_come_back_shared(tmp_path, suffix):
    net = Tied()
    path = save(net, tmp_path / f"net{suffix}", architecture={})
    assert read_record(path)["tied"] == {"head.weight": "embed.weight"}
    assert path.stat().st_size < 2 * 50 * 40 * 4
    loaded = load(path, Tied)
    assert loaded.head.weight is loaded.embed.weight
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in net.state_dict().items())


def test_a_subnet_searched_with_custom_groups_comes_back(tmp_path):
    def pair():
        return nn.Sequential(*(OneShotMutableOP({"a": nn.Linear(2, 2), "b": nn.Identity()}) for _ in range(2)))

    net = pair()
    mutator = Mutator(net, custom_groups=(("1", "0"),))
    expected = export(net, {"1": "a"}, mutator=mutator)
    given = pair()
    loaded = load(save(expected, tmp_path / "net.safetensors"), given)
    assert torch.equal(loaded(X), expected(X))
    assert given[0].current_choice is None


# ---- what cannot be saved or loaded ----------------------------------------------------------------------------------


class HoldsState(nn.Linear):
    def get_extra_state(self):
        return {"steps": 3}


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (build(), "net.pt", "still holds mutables, first '0'; save export"),
        (nn.Linear(2, 2), "net.pth", "saved as .safetensors or .pt, got 'net.pth'"),
        (HoldsState(2, 2), "net.pt", "the state of '_extra_state' is a dict, and only tensors can be saved"),
    ],
)
def test_what_cannot_be_saved_leaves_no_file(tmp_path, model, name, message):
    with pytest.raises(ExportError, match=message):
        save(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_keeps_the_older_file(tmp_path):
    path = save(subnet(), tmp_path / "net.pt")
    before = path.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save(subnet(), path, architecture={"a": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@formats
@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (
            lambda: build(width=3),
            r"has '0.1.weight' of shape \(2, 4\), the model \(3, 4\): it was built with other arguments",
        ),
        (
            lambda: nn.Sequential(OneShotMutableOP({"linear": nn.Linear(2, 2)})),
            "does not fit Sequential: .*no decision '2'",
        ),
        (lambda: nn.Sequential(build()[0]), "does not fit Sequential: the space has no decision '2'; .*allowed: '0'"),
        (
            lambda: nn.Sequential(nn.Linear(2, 2)),
            "lacks 2 tensors of the model, first '0.weight' and holds 9 .* first '0.0",
        ),
    ],
)
def test_a_file_that_does_not_fit_says_where(tmp_path, suffix, builder, message):
    path = save(export(build(), {"0": "mlp", "2": 2}), tmp_path / f"net{suffix}")
    with pytest.raises(LoadError, match=message):
        load(path, builder)


def test_a_file_without_an_architecture_does_not_fill_a_supernet(tmp_path):
    path = save(nn.Linear(2, 2), tmp_path / "net.pt")
    with pytest.raises(LoadError, match="has no architecture, but the model has decisions"):
        load(path, build)


@formats
def test_files_of_others_are_refused(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    with pytest.raises(LoadError, match="no file .*net"):
        load(path, build)
    path.write_bytes(b"not a model")
    with pytest.raises(LoadError, match="is not a file that mutorch.save wrote"):
        load(path, build)
    torch.save(nn.Linear(2, 2), tmp_path / "pickle.pt")
    with pytest.raises(LoadError, match="is not a file that mutorch.save wrote: UnpicklingError"):
        load(tmp_path / "pickle.pt", build)
    torch.save({"tensors": {}, "mutorch": '{"format": 99}'}, tmp_path / "newer.pt")
    with pytest.raises(LoadError, match="has format 99; this version reads format 1"):
        load(tmp_path / "newer.pt", build)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_loads_in_the_type_it_was_saved_in(tmp_path, dtype):
    def build():
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    saved = build().to(dtype)
    loaded = load(save(saved, tmp_path / "net.safetensors"), build)
    for (name, expected), found in zip(saved.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert found.dtype == expected.dtype, name
        assert torch.equal(found, expected), name
