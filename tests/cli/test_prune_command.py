"""`mutorch prune` as a user types it, on a toy config."""

import json

import pytest
import torch
from typer.testing import CliRunner

import mutorch
from mutorch.cli.app import app
from mutorch.errors import ConfigError, InfeasibleBudgetError
from mutorch.registry import MODELS

CONFIG = """
recipe: prune
model: {type: TinyNet}
data: {type: ClutteredDigits}
output: FOLDER/run
train: {steps: 8}
budget: {macs: "50%"}
finetune: {steps: 4}
divisor: 2
threads: 1
"""


class TinyNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 8, 3)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 10)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(MODELS, "_registered", {**MODELS.module_dict, "TinyNet": TinyNet})


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def write(tmp_path, text=CONFIG):
    path = tmp_path / "toy.yaml"
    path.write_text(text.replace("FOLDER", str(tmp_path)))
    return path


def test_prune_prints_before_and_after_and_writes_the_model_and_the_table(tmp_path):
    output = run("prune", write(tmp_path))
    for expected in ("before", "after", "latency_ms", "accuracy", "finetuned 4 steps", '{"conv": 4}', "next:"):
        assert expected in output
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["after"]["macs"] <= 0.5 * results["before"]["macs"]
    assert "| test accuracy |" in (tmp_path / "run" / "report.md").read_text()


def test_the_file_loads_into_the_original_class(tmp_path):
    run("prune", write(tmp_path))
    small = mutorch.load(tmp_path / "run" / "subnet.safetensors", TinyNet)
    assert type(small) is TinyNet
    assert small.conv.weight.shape == (4, 1, 3, 3)
    assert small(torch.zeros(2, 1, 10, 10)).shape == (2, 10)


def test_prune_takes_weights_and_trains_nothing(tmp_path):
    torch.save(TinyNet().state_dict(), tmp_path / "mine.pt")
    output = run("prune", write(tmp_path, CONFIG + f"weights: {tmp_path / 'mine.pt'}\n"))
    assert "training the original" not in output
    assert not (tmp_path / "run" / "original.ckpt").exists()


def test_a_budget_out_of_reach_fails_before_anything_is_trained(tmp_path):
    with pytest.raises(InfeasibleBudgetError, match="the space reaches from"):
        run("prune", write(tmp_path, CONFIG.replace("50%", "1%")))
    assert not (tmp_path / "run").exists()


def test_a_config_of_another_command_says_which(tmp_path):
    with pytest.raises(ConfigError, match="is for `mutorch search`: its recipe is 'spos'"):
        run("prune", write(tmp_path, CONFIG.replace("recipe: prune", "recipe: spos")))
    with pytest.raises(ConfigError, match="is for `mutorch prune`: its recipe is 'prune'"):
        run("search", write(tmp_path))


@pytest.mark.parametrize(
    ("recipe", "training"),
    [("dcff", "train: {steps: 8}"), ("dmcp", "supernet: {steps: 12}\nsearch: {start: 0.25, lr: 2.0, candidates: 2}")],
)
def test_prune_runs_the_methods_that_train_and_prune_at_once(tmp_path, recipe, training):
    text = CONFIG.replace("recipe: prune", f"recipe: {recipe}").replace("train: {steps: 8}", training)
    if recipe == "dcff":
        text = text.replace("finetune: {steps: 4}", "finetune: {steps: 4, distill: 0.0}")
    output = run("prune", write(tmp_path, text))
    assert "finetuned 4 steps" in output
    small = mutorch.load(tmp_path / "run" / "subnet.safetensors", TinyNet)
    assert small.conv.out_channels <= 4
    with pytest.raises(ConfigError, match=f"is for `mutorch prune`: its recipe is '{recipe}'"):
        run("search", write(tmp_path, text))
