"""`mutorch search` of a config that is searched with a controller, as a user types it."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import mutorch
from mutorch.cli.app import app
from mutorch.errors import ConfigError
from mutorch.recipes import EnasSettings
from mutorch.registry import load_config

CONFIG = """
recipe: enas
model: {type: EnasMacro, in_channels: 1, num_layers: 3, channels: 2}
data: {type: ClutteredDigits}
output: FOLDER/run
controller: {lstm_size: 8}
search: {rounds: 2, child_steps: 3, controller_steps: 2, num_samples: 2, batch_size: 16, num_candidates: 3,
  calibration_samples: 64}
retrain: {steps: 2}
num_retrained: 1
num_random: 1
threads: 1
"""


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("enas")
    path = folder / "toy.yaml"
    path.write_text(CONFIG.replace("FOLDER", str(folder)))
    return path, folder / "run", run("search", path)


def test_the_winner_is_shown_beside_a_random_architecture_trained_equally_long(config):
    path, _, output = config
    for expected in ("winner", "best of 1 random", "largest", "smallest", "2 rounds, 14 path-steps", "equally long"):
        assert expected in output
    assert "loads without mutorch" in output
    assert f"mutorch export {path}" in output


def test_the_report_shows_how_the_controller_was_trained(config):
    page = (config[1] / "report.html").read_text()
    assert "How the controller was trained" in page
    assert "The 3 best of 3 trials" in page
    assert "Method: controller, 2 rounds" in page


def test_the_same_line_shows_the_same_without_searching_again(config):
    path, folder, _ = config
    written = (folder / "search.ckpt").stat().st_mtime_ns
    before = [row["val_accuracy"] for row in json.loads((folder / "results.json").read_text())["rows"]]
    run("search", path)
    assert (folder / "search.ckpt").stat().st_mtime_ns == written
    assert [row["val_accuracy"] for row in json.loads((folder / "results.json").read_text())["rows"]] == before


def test_winner_and_any_architecture_are_exported(config, tmp_path):
    path, folder, _ = config
    run("export", path, "--to", tmp_path / "winner.safetensors")
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert mutorch.subnet.read_record(tmp_path / "winner.safetensors")["architecture"] == rows[0]["architecture"]
    chosen = {f"layer_{i}": "maxpool" for i in range(3)} | {"layer_1_skip": [], "layer_2_skip": "layer_0"}
    run("export", path, "--to", tmp_path / "one.pt2", "--architecture", json.dumps(chosen))
    assert torch.export.load(tmp_path / "one.pt2").module()(torch.zeros(2, 1, 10, 10)).shape == (2, 10)


def test_the_space_is_shown(config):
    assert "1,728 architectures" in run("space", config[0])


def test_train_says_that_weights_are_not_trained_alone(config):
    with pytest.raises(ConfigError, match="is for `mutorch search`: its recipe is 'enas'"):
        run("train", config[0])


def test_the_example_is_read():
    content = load_config(Path(__file__).parents[2] / "examples" / "digits_enas.yaml")
    settings = EnasSettings.from_config(content)
    assert settings.model["type"] == "EnasMacro"
