"""Search with a controller, from settings to a plain model."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import mutorch
from mutorch.errors import ConfigError, InfeasibleBudgetError, ResumeError, StateError
from mutorch.models import EnasMacro
from mutorch.mutables import LayerChoice, MutableScope
from mutorch.mutators import EnasMutator
from mutorch.recipes import EnasRun, EnasSearching, EnasSettings, Splits, Training, enas, search_by_controller
from mutorch.recipes.enas import Proposals
from mutorch.registry import DATASETS, MODELS
from mutorch.search import Feasible, read_history


def images(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (40,), generator=generator)
    return TensorDataset(torch.randn(40, 1, 8, 8, generator=generator) + labels[:, None, None, None], labels)


DATA = Splits({"train": images(0), "val": images(1), "test": images(2)})
MODEL = {"type": "EnasMacro", "num_classes": 4, "in_channels": 1, "num_layers": 3, "channels": 4}
SHORT = {"rounds": 3, "child_steps": 3, "controller_steps": 2, "num_samples": 2, "batch_size": 8}
TINY = EnasSettings(
    model=MODEL,
    data={"type": "TinyImages"},
    controller={"lstm_size": 8},
    search=EnasSearching(**SHORT, num_candidates=4, calibration_samples=16),
    retrain=Training(steps=2, batch_size=8),
    num_retrained=2,
    num_random=2,
)


@pytest.fixture(scope="module", autouse=True)
def _registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DATASETS, "_registered", dict(DATASETS.module_dict))
        DATASETS.register_module(name="TinyImages", force=True)(lambda: DATA)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that ended, its folder and what it said that it was doing."""
    folder, stages = tmp_path_factory.mktemp("enas"), []
    result = enas(TINY, folder, progress=lambda stage, *_: stages.append(stage))
    return result, folder, stages


class StopError(Exception):
    pass


def stopping(stage_name, at):
    def progress(stage, done, total, note):
        if stage == stage_name and done >= at:
            raise StopError

    return progress


def build():
    torch.manual_seed(0)
    return EnasMacro(num_classes=4, in_channels=1, num_layers=3, channels=4, dropout=0.2)


def searched(net, **options):
    mutator = EnasMutator(net, lstm_size=8)
    return mutator, search_by_controller(net, mutator, DATA, **SHORT, **options)


def test_a_run_ends_with_a_plain_model_beside_what_it_has_to_beat(finished):
    result, folder, stages = finished
    assert list(dict.fromkeys(stages)) == [
        "training weights and controller",
        "searching",
        "training subnets alone",
        "exporting the winner",
    ]
    roles = [row.role for row in result.rows]
    assert roles == ["winner", "runner-up", "best of 2 random", "largest", "smallest"]
    assert not any(isinstance(module, LayerChoice) for module in result.subnet.modules())
    assert result.rows[0].architecture in [trial.architecture for trial in result.history.top(2)]
    record = mutorch.subnet.read_record(result.subnet_file)
    assert record["architecture"] == result.rows[0].architecture
    loaded = mutorch.load(result.subnet_file, build()).eval()
    assert torch.equal(loaded(DATA.example_inputs), result.subnet.eval()(DATA.example_inputs))
    content = json.loads((folder / "results.json").read_text())
    assert content["recipe"] == "enas"
    assert [one["number"] for one in content["rounds"]] == [1, 2, 3]
    assert len(read_history(folder / content["log"])) == 4


@pytest.mark.parametrize("stop", [("training weights and controller", 2), ("searching", 2)])
def test_a_run_that_was_stopped_ends_like_one_that_was_not(finished, tmp_path, stop):
    whole, _, _ = finished
    with pytest.raises(StopError):
        enas(TINY, tmp_path, progress=stopping(*stop))
    resumed = enas(TINY, tmp_path)
    assert resumed.rounds == whole.rounds
    assert [trial.score for trial in resumed.history] == [trial.score for trial in whole.history]
    assert [replace(row, latency_ms=0) for row in resumed.rows] == [replace(row, latency_ms=0) for row in whole.rows]
    assert all(map(torch.equal, resumed.net.state_dict().values(), whole.net.state_dict().values()))


def test_more_candidates_or_a_budget_use_the_trained_weights_again(finished, tmp_path):
    shutil.copytree(finished[1], tmp_path, dirs_exist_ok=True)
    written = (tmp_path / "search.ckpt").stat().st_mtime_ns
    search = replace(TINY.search, num_candidates=5, budget={"macs": "70%"})
    again = enas(replace(TINY, search=search, num_random=1), tmp_path)
    assert (tmp_path / "search.ckpt").stat().st_mtime_ns == written
    assert len(again.history) == 5
    assert all(trial.costs.macs <= 0.7 * again.table(again.table.largest()).macs for trial in again.history)
    assert "budget" in again.method


def test_a_folder_of_other_settings_is_refused_and_named(tmp_path):
    EnasRun(TINY, tmp_path).train_supernet()
    with pytest.raises(ResumeError, match=r"other settings \(search.rounds: 3 there, 2 here\)"):
        enas(replace(TINY, search=replace(TINY.search, rounds=2)), tmp_path)


def test_a_budget_that_cannot_be_met_fails_before_anything_is_trained(tmp_path):
    with pytest.raises(InfeasibleBudgetError):
        enas(replace(TINY, search=replace(TINY.search, budget={"macs": 1})), tmp_path)
    assert not (tmp_path / "search.ckpt").exists()


def test_both_are_trained_in_turn_and_the_same_seed_finds_the_same():
    first, second = build(), build()
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    mutator, rounds = searched(first, seed=3)
    parameters = [parameter.detach().clone() for parameter in EnasMutator(build(), lstm_size=8).parameters()]
    assert any(not torch.equal(tensor, before[name]) for name, tensor in first.state_dict().items())
    assert any(not torch.equal(p, q) for p, q in zip(mutator.parameters(), parameters, strict=True))
    assert searched(second, seed=3)[1] == rounds
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert searched(build(), seed=4)[1] != rounds


def test_a_search_that_was_stopped_goes_on_with_the_same_weights(tmp_path):
    whole, part = build(), build()
    mutator, rounds = searched(whole)
    with pytest.raises(StopError):
        searched(build(), checkpoint=tmp_path / "a.ckpt", progress=stopping("training weights and controller", 1))
    resumed, again = searched(part, checkpoint=tmp_path / "a.ckpt")
    assert again == rounds
    assert all(map(torch.equal, part.state_dict().values(), whole.state_dict().values()))
    assert all(map(torch.equal, resumed.parameters(), mutator.parameters()))
    with pytest.raises(ResumeError, match="belongs to another run"):
        searched(build(), checkpoint=tmp_path / "a.ckpt", seed=1)


def test_torchs_generator_is_left_as_it_was():
    net = build()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    searched(net)
    assert torch.equal(torch.get_rng_state(), state)


class TwoHeads(nn.Module):
    """A model with a second classifier in training."""

    def __init__(self):
        super().__init__()
        self.op = LayerChoice({"a": nn.Linear(64, 4), "b": nn.Linear(64, 4)})
        self.second = nn.Linear(64, 4)

    def forward(self, x):
        x = x.flatten(1)
        return (self.op(x), self.second(x)) if self.training else self.op(x)


def test_a_second_classifier_is_trained_too():
    net = TwoHeads()
    before = net.second.weight.detach().clone()
    searched(net)
    assert not torch.equal(net.second.weight, before)


class Planted(nn.Module):
    """Only one of its candidates lets anything be learned."""

    def __init__(self):
        super().__init__()
        self.op = LayerChoice({"nothing": nn.Threshold(1e9, 0.0), "all": nn.Identity(), "zero": nn.Threshold(1e8, 0.0)})
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.op(x.flatten(1)))


def test_the_controller_learns_which_candidate_works():
    net = Planted()
    mutator = EnasMutator(net, lstm_size=8)
    rounds = search_by_controller(
        net,
        mutator,
        DATA,
        rounds=5,
        child_steps=30,
        controller_steps=15,
        num_samples=4,
        batch_size=16,
        controller_lr=0.03,
    )
    assert mutator.export() == {"op": "all"}
    assert rounds[-1].reward > rounds[0].reward
    assert rounds[-1].entropy < 0.8 * rounds[0].entropy


def test_proposals_are_the_likeliest_and_then_samples_each_once():
    mutator = EnasMutator(build(), lstm_size=8)
    proposals, again = (Proposals(mutator, Feasible(mutator.space), seed=0) for _ in range(2))
    found = [proposals.ask() for _ in range(12)]
    assert found[0] == mutator.space.canonical(mutator.likeliest())
    assert len({json.dumps(architecture) for architecture in found}) == 12
    assert found == [again.ask() for _ in range(12)]


def test_proposals_end_where_there_is_nothing_new():
    mutator = EnasMutator(nn.Sequential(LayerChoice({"a": nn.Identity(), "b": nn.ReLU()}, key="op")))
    proposals = Proposals(mutator, Feasible(mutator.space), seed=0)
    assert [proposals.ask() is None for _ in range(3)] == [False, False, True]


class WithValue(TwoHeads):
    """A model with a decision that is no layer."""

    def __init__(self):
        super().__init__()
        self.scale = mutorch.OneShotMutableValue([1, 2])


def test_decisions_that_a_controller_does_not_make_are_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(MODELS, "_registered", dict(MODELS.module_dict))
    MODELS.register_module(name="WithValue")(WithValue)
    with pytest.raises(StateError, match="'scale' is neither"):
        enas(replace(TINY, model={"type": "WithValue"}), tmp_path)


class Block(MutableScope):
    def __init__(self):
        super().__init__("block")
        self.op = LayerChoice({"a": nn.Identity(), "b": nn.ReLU()})

    def forward(self, x):
        return self.op(x)


def test_files_of_a_model_with_scopes_load(tmp_path):
    net = nn.Sequential(Block(), nn.Linear(2, 2))
    exported = mutorch.export(net, {"0.op": "b"})
    mutorch.save(exported, tmp_path / "a.safetensors")
    x = torch.tensor([[1.0, -1.0]])
    assert torch.equal(mutorch.load(tmp_path / "a.safetensors", net)(x), exported(x))
    assert torch.equal(mutorch.load(tmp_path / "a.safetensors", mutorch.export(net, {"0.op": "b"}))(x), exported(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": {"round": 3}}, "'search' has no key 'round'; did you mean 'rounds'"),
        ({"search": {"rounds": 0}}, "search: rounds must be a whole number of at least 1, got 0"),
        ({"search": {"num_samples": 1.5}}, "search: num_samples must be a whole number"),
        ({"search": {"controller_lr": -1}}, "search: controller_lr must be a number of at least 0"),
        ({"search": {"baseline_decay": 1}}, "baseline_decay must be a number of at least 0 and below 1, got 1"),
        ({"controller": {"lstm": 3}}, "'controller' has no key 'lstm'; did you mean 'lstm_size'"),
        ({"controller": 64}, "'controller' must be a dict, got int"),
        ({"num_random": 0}, "num_random must be at least 1"),
        ({"model": None}, "a config needs 'model'"),
        ({"supernet": {}}, "the config has no key 'supernet'"),
    ],
)
def test_settings_that_are_wrong_are_refused_at_once(change, message):
    config = {"recipe": "enas", "model": MODEL, "data": {"type": "ClutteredDigits"}}
    with pytest.raises(ConfigError, match=message):
        EnasSettings.from_config({**config, **change})
