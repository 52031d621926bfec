"""`mutorch slim` as a user types it, on a toy config."""

import json

import pytest
import torch
from typer.testing import CliRunner

import mutorch
from mutorch.cli.app import app
from mutorch.errors import ConfigError, InfeasibleBudgetError
from mutorch.recipes import SlimmableSettings
from mutorch.registry import MODELS, load_config

CONFIG = """
recipe: RECIPE
model: {type: SlimNet}
data: {type: ClutteredDigits}
output: FOLDER/run
supernet: {steps: 4}
budgets: [{macs: "60%"}, {macs: "30%"}]
search: {num_trials: 3, calibration: 2}
divisor: 2
threads: 1
"""


class SlimNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 8, 3, stride=2)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 10)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(MODELS, "_registered", {**MODELS.module_dict, "SlimNet": SlimNet})


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def write(tmp_path, recipe="autoslim", text=CONFIG):
    path = tmp_path / "toy.yaml"
    path.write_text(text.replace("FOLDER", str(tmp_path)).replace("RECIPE", recipe))
    return path


@pytest.mark.parametrize("recipe", ["slimmable", "us-net", "autoslim", "bignas", "ofa"])
def test_every_recipe_of_the_family_gives_a_subnet_for_each_budget(tmp_path, recipe):
    output = run("slim", write(tmp_path, recipe))
    for expected in (f"{recipe}: one network", "budget", "largest", "accuracy", "saved", "next:"):
        assert expected in output
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    for row, share in zip(rows, (1.0, 0.6, 0.3), strict=True):
        assert row["macs"] <= share * rows[0]["macs"]
        small = mutorch.load(tmp_path / "run" / row["file"], SlimNet)
        assert small.conv.out_channels == next(iter(row["architecture"].values()))
        assert sum(parameter.numel() for parameter in small.parameters()) == row["params"]


def test_accuracy_after_finetuning_is_shown_where_there_was_some(tmp_path):
    assert "finetuned" not in run("slim", write(tmp_path, "us-net"))
    assert "finetuned" in run("slim", write(tmp_path, "us-net", CONFIG + "finetune: {steps: 2}\n"))


def test_other_budgets_take_the_network_that_was_trained(tmp_path):
    run("slim", write(tmp_path))
    trained = (tmp_path / "run" / "supernet.ckpt").read_bytes()
    run("slim", write(tmp_path, text=CONFIG.replace("60%", "80%")))
    assert (tmp_path / "run" / "supernet.ckpt").read_bytes() == trained


def test_a_budget_out_of_reach_fails_before_anything_is_trained(tmp_path):
    with pytest.raises(InfeasibleBudgetError):
        run("slim", write(tmp_path, text=CONFIG.replace("30%", "1%")))
    assert not (tmp_path / "run").exists()


def test_a_config_of_another_command_says_which(tmp_path):
    with pytest.raises(ConfigError, match="is for `mutorch slim`: its recipe is 'autoslim'"):
        run("search", write(tmp_path))
    with pytest.raises(ConfigError, match="is for `mutorch prune`: its recipe is 'dcff'"):
        run("slim", write(tmp_path, "dcff"))


@pytest.mark.parametrize("example", ["digits_autoslim", "digits_slimmable"])
def test_the_examples_are_read(example):
    config = load_config(f"examples/{example}.yaml")
    assert SlimmableSettings.from_config(config).recipe == example.removeprefix("digits_")
