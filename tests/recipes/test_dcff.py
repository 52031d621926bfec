import json

import pytest
import torch
from torch import nn

from mutorch import load
from mutorch.errors import ConfigError, InfeasibleBudgetError, LoadError, ResumeError
from mutorch.recipes import DCFFSettings, dcff
from mutorch.registry import MODELS

CONFIG = {"model": {"type": "Net"}, "data": {"type": "ClutteredDigits"}, "budget": {"macs": "50%"}, "threads": 1}


def net(width=8):
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 12, 3), nn.BatchNorm2d(12), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(MODELS, "_registered", {**MODELS.module_dict, "Net": net})


def settings(**options):
    return DCFFSettings.from_config({"train": {"steps": 6}, "divisor": 2, "every": 2, **CONFIG, **options})


def test_it_ends_with_a_plain_model_within_the_budget_that_loads_from_its_file(tmp_path):
    result = dcff(settings(finetune={"steps": 2}), tmp_path)
    before, after = result.shrunk.comparison.first, result.shrunk.comparison.second
    assert after["macs"] <= 0.5 * before["macs"]
    assert {type(one) for one in result.shrunk.model.modules()} == {type(one) for one in net().modules()}
    x = torch.randn(3, 1, 10, 10)
    assert torch.equal(load(result.subnet_file, net).eval()(x), result.shrunk.model.eval()(x))
    assert list(result.shrunk.scores) == ["fused", "recalibrated", "finetuned"]
    written = json.loads((tmp_path / "results.json").read_text())
    assert (written["after"]["test_accuracy"], written["before"]["test_accuracy"]) == (result.test_accuracy[1], None)


def test_what_is_exported_before_recalibration_is_the_fused_net(tmp_path):
    result = dcff(settings(), tmp_path)
    x = torch.randn(3, 1, 10, 10)
    for path in ("0", "3"):
        fused, plain = result.shrunk.net.get_submodule(path), result.shrunk.model.get_submodule(path)
        assert torch.equal(fused.weight, plain.weight)
        assert fused.fusion.shape[1] > fused.fusion.shape[0] == plain.out_channels
    assert result.shrunk.model(x).shape == (3, 10)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    class StoppedError(Exception):
        pass

    def stop(stage, done, total, note):
        if stage == "training fused filters" and done == 520:
            raise StoppedError

    options = {"train": {"steps": 540, "batch_size": 4}, "every": 100}
    whole = dcff(settings(**options), tmp_path / "whole")
    with pytest.raises(StoppedError):
        dcff(settings(**options), tmp_path / "stopped", progress=stop)
    again = dcff(settings(**options), tmp_path / "stopped")
    for one, other in zip(whole.shrunk.model.parameters(), again.shrunk.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_ratios_say_what_each_layer_keeps(tmp_path):
    result = dcff(settings(budget=None, ratios={"*": 0.5, "3": 0.75}), tmp_path)
    assert list(result.shrunk.architecture.values()) == [4, 9]
    assert result.shrunk.budget == "*: 0.5, 3: 0.75"


def test_frozen_units_stay_whole_and_given_weights_are_the_beginning(tmp_path):
    torch.save(net().state_dict(), tmp_path / "mine.pt")
    result = dcff(settings(freeze="3", weights=str(tmp_path / "mine.pt")), tmp_path / "run")
    assert result.shrunk.model[3].out_channels == 12
    assert result.shrunk.model[0].out_channels < 8
    assert 0 < result.test_accuracy[0] < 1


def test_a_folder_is_one_run_and_may_be_finetuned_longer(tmp_path):
    first = dcff(settings(), tmp_path)
    longer = dcff(settings(finetune={"steps": 2}), tmp_path)
    assert longer.shrunk.scores["fused"] == first.shrunk.scores["fused"]
    with pytest.raises(ResumeError, match="holds a run with other settings"):
        dcff(settings(budget={"macs": "60%"}), tmp_path)


def test_a_budget_out_of_reach_fails_before_anything_is_trained(tmp_path):
    with pytest.raises(InfeasibleBudgetError, match="the space reaches from|narrowest model"):
        dcff(settings(budget={"macs": "0.1%"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(LoadError, match="no file"):
        dcff(settings(weights=str(tmp_path / "none.pt")), tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": {"*": 0.5}}, "either 'budget' or 'ratios'"),
        ({"budget": None}, "either 'budget' or 'ratios'"),
        ({"budget": "50%"}, "'budget' must be a dict"),
        ({"budget": None, "ratios": {"*": 1.5}}, "ratios: '\\*' must be a number above 0 and at most 1, got 1.5"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"finetune": {"steps": 3, "distill": 0.5}}, "finetune: distill must be 0"),
        ({"evry": 3}, "no key 'evry'; did you mean 'every'"),
        ({"model": "Net"}, "a config needs 'model', a dict"),
    ],
)
def test_a_mistake_in_a_config_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        settings(**options)


def test_a_pattern_that_names_nothing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="'conv' names no unit of the model; valid|'conv' names no unit"):
        dcff(settings(freeze="conv"), tmp_path)
