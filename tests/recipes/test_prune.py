import json

import pytest
import torch
from torch import nn

from mutorch.errors import ConfigError, LoadError, ResumeError
from mutorch.pruning import Finetune
from mutorch.recipes import PruneSettings, Training, prune
from mutorch.registry import MODELS

CONFIG = {"model": {"type": "Net"}, "data": {"type": "ClutteredDigits"}, "budget": {"macs": "50%"}, "threads": 1}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    def net(width=8):
        return nn.Sequential(
            nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(width * 64, 10)
        )

    monkeypatch.setattr(MODELS, "_registered", {**MODELS.module_dict, "Net": net})


def settings(**options):
    return PruneSettings.from_config(
        {"train": {"steps": 6}, "finetune": {"steps": 2}, "divisor": 2, **CONFIG, **options}
    )


def test_the_same_folder_goes_on_with_the_original_that_was_trained(tmp_path):
    first = prune(settings(), tmp_path)
    told = []
    again = prune(settings(), tmp_path, progress=lambda stage, done, *_: told.append((stage, done)))
    assert again.test_accuracy == first.test_accuracy
    assert again.shrunk.architecture == first.shrunk.architecture
    assert told[0] == ("training the original", 6)


def test_another_budget_may_use_the_same_folder_and_another_model_may_not(tmp_path):
    prune(settings(), tmp_path)
    assert prune(settings(budget={"params": "60%"}), tmp_path).shrunk.budget.startswith("params")
    with pytest.raises(ResumeError, match="holds a run with other settings"):
        prune(settings(model={"type": "Net", "width": 16}), tmp_path)


@pytest.mark.parametrize(
    "importance",
    [
        *("l1", {"type": "l2", "reads": True}, "batch_norm_scale", "random"),
        *({"type": "taylor", "num_batches": 2}, {"type": "group_fisher", "num_batches": 2, "normalise": "macs"}),
    ],
)
def test_every_ranking_has_a_name(tmp_path, importance):
    assert prune(settings(importance=importance), tmp_path).shrunk.architecture == {"0": 4}


@pytest.mark.parametrize(
    ("gradual", "steps"),
    [({"type": "rounds", "rounds": 2, "steps_between": 3}, 5), ({"type": "one_by_one", "steps": 4, "interval": 2}, 6)],
)
def test_a_config_may_prune_little_by_little(tmp_path, gradual, steps):
    shrunk = prune(settings(gradual=gradual), tmp_path).shrunk
    assert shrunk.architecture == {"0": 4}
    assert shrunk.steps == steps
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["passes"] == pytest.approx(shrunk.passes)


def test_a_config_may_give_shares_by_name_which_are_checked_before_training(tmp_path):
    small = prune(settings(budget={}, allocation={"0": 0.75}), tmp_path / "run").shrunk
    assert small.architecture == {"0": 6}
    with pytest.raises(ConfigError, match="a share is given for '1'"):
        prune(settings(budget={}, allocation={"1": 0.75}), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_weights_that_do_not_fit_are_named(tmp_path):
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "other.pt")
    with pytest.raises(LoadError, match="do not fit Sequential"):
        prune(settings(weights=str(tmp_path / "other.pt")), tmp_path / "run")
    with pytest.raises(LoadError, match="no file"):
        prune(settings(weights=str(tmp_path / "none.pt")), tmp_path / "run")


def test_settings_are_read_and_checked():
    found = settings(freeze="head.*", tie=[["a", "b"]], finetune={"epochs": 2, "distill": 0.5}, allocation="global")
    assert (found.freeze, found.tie) == (("head.*",), (("a", "b"),))
    assert found.finetune == Finetune(epochs=2, distill=0.5)
    assert found.train == Training(steps=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budgets": {}}, "the config has no key 'budgets'; did you mean 'budget'"),
        ({"budget": None}, "a config needs 'budget', a dict"),
        ({"importance": "l3"}, "no importance 'l3'; did you mean 'l2' or 'l1'"),
        ({"allocation": "globl"}, "no allocation 'globl'; did you mean 'global'"),
        ({"allocation": {"0": 2}}, "the share of '0' must be above 0 and at most 1, got 2"),
        ({"importance": {"type": "l1", "red": True}}, "'importance' has no key 'red'; did you mean 'reads'"),
        ({"importance": {"type": "group_fisher", "normalise": "mac"}}, "did you mean 'macs'"),
        ({"gradual": "round"}, "no gradual 'round'; did you mean 'rounds'"),
        ({"gradual": {"type": "rounds", "steps": 3}}, "'gradual' has no key 'steps'"),
        ({"gradual": {"type": "one_by_one", "interval": 0}}, "interval must be a whole number of at least 1"),
        ({"finetune": {"step": 3}}, "'finetune' has no key 'step'; did you mean 'steps'"),
        ({"finetune": {"distill": 3}}, "distill is a share"),
        ({"train": {"steps": 0}}, "train: steps must be a whole number of at least 1"),
    ],
)
def test_a_mistake_in_a_config_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        settings(**options)
