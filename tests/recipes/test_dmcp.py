import json

import pytest
import torch
from torch import nn

from mutorch import Mutator, load
from mutorch.errors import ConfigError, InfeasibleBudgetError, ResumeError
from mutorch.recipes import DMCPSettings, Training, WidthSearch, WidthSearching, dmcp, searchable_by_groups
from mutorch.registry import MODELS
from mutorch.testing import ClutteredDigits

CONFIG = {"model": {"type": "Net"}, "data": {"type": "ClutteredDigits"}, "budget": {"macs": "60%"}, "threads": 1}
SEARCH = {"start": 0.25, "lr": 0.5, "candidates": 3, "calibration": 2, "step": 0.1}


def net(width=20):
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 20, 3), nn.BatchNorm2d(20), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 10),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(MODELS, "_registered", {**MODELS.module_dict, "Net": net})


def settings(**options):
    config = {"supernet": {"steps": 16}, "search": SEARCH, "finetune": {"steps": 2}, "divisor": 1}
    return DMCPSettings.from_config({**config, **CONFIG, **options})


def test_it_ends_with_a_plain_model_within_the_budget_that_loads_from_its_file(tmp_path):
    result = dmcp(settings(), tmp_path)
    before, after = result.shrunk.comparison.first, result.shrunk.comparison.second
    assert after["macs"] <= 0.6 * before["macs"]
    assert {type(one) for one in result.shrunk.model.modules()} == {type(one) for one in net().modules()}
    x = torch.randn(3, 1, 10, 10)
    assert torch.equal(load(result.subnet_file, net).eval()(x), result.shrunk.model.eval()(x))
    assert list(result.shrunk.scores) == ["original", "recalibrated", "finetuned"]
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["architecture"] == dict(result.shrunk.architecture)
    assert written["after"]["test_accuracy"] == result.test_accuracy[1]


def test_passes_are_counted(tmp_path):
    options = {"search": {**SEARCH, "candidates": 1}, "finetune": {"steps": 3, "distill": 0.0}}
    result = dmcp(settings(**options), tmp_path)
    forwards = 2 + 1588 / 64 + 2 * 2  # two batches for the norms of the sample, the validation images, and two nets
    assert result.shrunk.passes == pytest.approx(16 * 3 + 12 * 4 / 3 + forwards / 3 + 3)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    def search():
        torch.manual_seed(0)
        model = searchable_by_groups(net(), torch.zeros(1, 1, 10, 10), WidthSearching())
        return WidthSearch(model, ClutteredDigits(), {"macs": "60%"}, Training(steps=8), WidthSearching(lr=0.5), seed=3)

    whole, stopped, again = search(), search(), search()
    whole.train()
    for _ in range(5):
        stopped.iterate()
    again.load_state_dict(stopped.state_dict())
    again.train()
    for one, other in zip(whole.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(one, other)
    assert str(whole.markov.state_dict()) == str(again.markov.state_dict())
    assert again.passes == whole.passes


def test_a_finished_supernet_is_used_again(tmp_path):
    first = dmcp(settings(), tmp_path)
    told = []
    again = dmcp(settings(), tmp_path, progress=lambda stage, *_: told.append(stage))
    assert "training supernet and widths" not in told
    assert again.shrunk.architecture == first.shrunk.architecture
    assert again.test_accuracy == first.test_accuracy
    with pytest.raises(ResumeError, match="holds a run with other settings"):
        dmcp(settings(seed=1), tmp_path)


def test_units_that_are_frozen_stay_whole(tmp_path):
    result = dmcp(settings(freeze="0", budget={"macs": "70%"}), tmp_path)
    assert set(result.shrunk.architecture) == {"3"}


def test_every_unit_has_the_widths_of_its_groups():
    model = searchable_by_groups(net(), torch.zeros(1, 1, 10, 10), WidthSearching(min_share=0.1, step=0.05))
    assert Mutator(model).space["0"].choices == tuple(range(2, 21))


def test_a_budget_out_of_reach_fails_before_anything_is_trained(tmp_path):
    with pytest.raises(InfeasibleBudgetError, match="the space reaches from"):
        dmcp(settings(budget={"macs": "0.1%"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_probabilities_that_do_not_reach_the_budget_are_an_error(tmp_path):
    with pytest.raises(InfeasibleBudgetError, match="train the probabilities longer"):
        dmcp(settings(search={**SEARCH, "lr": 0.0}), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": None}, "a config needs 'budget', a dict"),
        ({"budgets": {}}, "no key 'budgets'; did you mean 'budget'"),
        ({"search": {"cost_loss": "l3"}}, "no cost_loss 'l3'; did you mean"),
        ({"search": {"start": 1.0}}, "start must be a number at least 0 and below 1, got 1.0"),
        ({"search": {"min_share": 0}}, "min_share must be a number above 0 and at most 1, got 0"),
        ({"search": {"candidates": 0}}, "candidates must be a whole number of at least 1, got 0"),
        ({"search": {"candidate": 3}}, "'search' has no key 'candidate'; did you mean 'candidates'"),
        ({"divisor": 1.5}, "divisor must be a whole number of at least 1, got 1.5"),
    ],
)
def test_a_mistake_in_a_config_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        settings(**options)


def test_a_budget_without_an_upper_bound_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="a budget with an upper bound"):
        dmcp(settings(budget={"macs": ("20%", None)}), tmp_path)
