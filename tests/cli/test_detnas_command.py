"""`mutorch search` of a config that searches a detector, as a user types it."""

import json
import warnings

import pytest
import torch
from typer.testing import CliRunner

from mutorch.cli.app import app
from mutorch.cli.program_check import check_program
from mutorch.errors import ExportError
from mutorch.recipes import DetNASRun, DetNASSettings
from mutorch.registry import load_config
from mutorch.subnet import load

CONFIG = """
recipe: detnas
model:
  type: DenseDetector
  num_classes: 10
  in_channels: 8
  neck_channels: 8
  backbone:
    type: OneShotMutableOP
    candidates:
      conv: {type: Conv2d, in_channels: 1, out_channels: 8, kernel_size: 4, stride: 4}
      wide: {type: Conv2d, in_channels: 1, out_channels: 8, kernel_size: 8, stride: 4, padding: 2}
data: {type: DetectionDigits, counts: {train: 32, val: 8, test: 8}}
output: FOLDER/run
supernet: {steps: 2, batch_size: 8}
search: {num_trials: 2, calibration_samples: 8}
retrain: {steps: 1, batch_size: 8}
num_retrained: 1
num_random: 1
threads: 1
"""


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The config, the folder of the run and what the terminal showed."""
    folder = tmp_path_factory.mktemp("detnas")
    path = folder / "toy.yaml"
    path.write_text(CONFIG.replace("FOLDER", str(folder)))
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".isinstance.treespec, LeafSpec.. is deprecated", FutureWarning
        )  # torch's exporter
        run("train", path)
        return path, folder / "run", run("search", path)


def test_one_command_trains_searches_and_reports_in_the_metric_of_the_task(finished):
    _, folder, output = finished
    for expected in ("winner", "best of 1 random", "mAP on test data", "loads without mutorch"):
        assert expected in output
    page = (folder / "report.html").read_text()
    assert "validation mAP" in page
    assert "accuracy" not in page
    assert json.loads((folder / "results.json").read_text())["metric"] == "mAP"


def test_a_program_that_differs_in_one_of_its_outputs_is_refused(finished):
    path, folder, _ = finished
    settings = DetNASSettings.from_config(load_config(path))
    detector = DetNASRun(settings, folder / "other")
    model = load(folder / "subnet.safetensors", detector.build)
    images = torch.cat([detector.data.example_inputs] * 2)
    model.box_head.bias.data += 1
    with pytest.raises(ExportError, match="outputs differ by"):
        check_program(folder / "subnet.pt2", model, images)
