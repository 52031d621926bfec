"""`mutorch search` of a config that is searched by gradient, as a user types it."""

import json
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

import mutorch
from mutorch.cli.app import app
from mutorch.errors import ConfigError, ResumeError, SpaceError, StateError

# Searches of a few steps prefer anything.
pytestmark = pytest.mark.filterwarnings("ignore:the search is collapsing")

CONFIG = """
recipe: differentiable
model: {type: ChainNet, mutable: DiffMutableOP}
data: {type: ClutteredDigits}
output: FOLDER/run
method: darts
search: {path_steps: 40, batch_size: 16}
retrain: {steps: 2}
num_random: 1
threads: 1
"""
DATA = """
import torch
from mutorch.registry import DATASETS, MODELS
from mutorch.mutables import DiffMutableOP

@MODELS.register_module()
class LearnedNet(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.block = DiffMutableOP({"linear": torch.nn.Linear(4, width), "small": torch.nn.Sequential(
            torch.nn.Linear(4, 2), torch.nn.Linear(2, width))})
        self.head = torch.nn.Linear(width, 3)

    def forward(self, x):
        return self.head(torch.relu(self.block(x)))

@DATASETS.register_module()
class LoadedData:
    example_inputs = torch.zeros(1, 4)

    def loader(self, split, batch_size):
        x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
        data = torch.utils.data.TensorDataset(x, x.argmax(dim=1) % 3)
        return torch.utils.data.DataLoader(data, batch_size=batch_size, shuffle=split == "train")
"""


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def write(folder, text=CONFIG):
    path = folder / "toy.yaml"
    path.write_text(text.replace("FOLDER", str(folder)))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradient")
    path = write(folder)
    return path, folder / "run", run("search", path)


def test_the_winner_is_shown_beside_a_random_architecture_trained_equally_long(config):
    path, _, output = config
    for expected in ("winner", "best of 1 random", "largest", "smallest", "darts, 40 path-steps", "equally long"):
        assert expected in output
    assert "loads without mutorch" in output
    assert f"mutorch export {path}" in output


def test_the_log_has_a_line_for_each_look_and_the_report_shows_them(config):
    _, folder, _ = config
    head, *lines = [json.loads(line) for line in (folder / "search.jsonl").read_text().splitlines()]
    assert head["path_steps"] == 40
    assert [line["reading"] for line in lines] == list(range(1, len(lines) + 1))
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 2  # what was learned, and the winner
    assert "How it was learned" in page
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert rows[0]["architecture"] == lines[-1]["architecture"]


def test_the_same_line_shows_the_same_without_searching_again(config):
    path, folder, _ = config

    def scores():
        rows = json.loads((folder / "results.json").read_text())["rows"]
        return [{key: value for key, value in row.items() if key != "latency_ms"} for row in rows]

    written, before = (folder / "search.ckpt").stat().st_mtime_ns, scores()
    run("search", path)
    assert (folder / "search.ckpt").stat().st_mtime_ns == written
    assert scores() == before


def test_other_settings_in_the_same_folder_are_refused(config):
    path, folder, _ = config
    other = path.with_name("other.yaml")
    other.write_text(path.read_text().replace("method: darts", "method: gdas"))
    with pytest.raises(ResumeError, match=r"other settings \(method: 'darts' there, 'gdas' here\)"):
        run("search", other)
    more = path.with_name("more.yaml")
    more.write_text(path.read_text().replace("num_random: 1", "num_random: 2"))
    assert "best of 2 random" in run("search", more)
    assert folder.exists()


def test_winner_and_any_architecture_are_exported(config, tmp_path):
    path, folder, _ = config
    run("export", path, "--to", tmp_path / "winner.safetensors")
    record = mutorch.subnet.read_record(tmp_path / "winner.safetensors")
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert record["architecture"] == rows[0]["architecture"]
    chosen = {f"block{i}": "maxpool" for i in range(4)}
    run("export", path, "--to", tmp_path / "one.pt2", "--architecture", json.dumps(chosen))
    assert torch.export.load(tmp_path / "one.pt2").module()(torch.zeros(2, 1, 10, 10)).shape == (2, 10)
    with pytest.raises(SpaceError, match="did you mean 'block0'"):
        run("export", path, "--to", tmp_path / "x.pt", "--architecture", '{"blok0": "skip"}')


def test_the_space_is_shown(config):
    assert "256 architectures" in run("space", config[0])


@pytest.mark.parametrize("method", ["samples", "gdas"])
def test_a_method_may_be_a_dict_of_what_is_different(tmp_path, method):
    text = CONFIG.replace("method: darts", f"method: {{type: {method}, arch_lr: 0.1}}")
    assert f"{method}, " in run("search", write(tmp_path, text))


def test_a_supernet_without_anything_to_learn_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(StateError, match="no decision of this model can be learned by gradient"):
        run("search", write(tmp_path, CONFIG.replace(", mutable: DiffMutableOP", "")))
    assert not (tmp_path / "run" / "search.ckpt").exists()


def test_train_says_that_weights_are_not_trained_alone(tmp_path):
    with pytest.raises(ConfigError, match="is for `mutorch search`: its recipe is 'differentiable'"):
        run("train", write(tmp_path))


def test_own_model_and_loaders_beside_the_config_are_found(tmp_path):
    (tmp_path / "my_learned_things.py").write_text(DATA)
    text = CONFIG.replace("type: ChainNet, mutable: DiffMutableOP", "type: LearnedNet, width: 8")
    text = text.replace("ClutteredDigits", "LoadedData") + "custom_imports: {imports: [my_learned_things]}\n"
    # A process of its own: registering is for the life of a process.
    done = subprocess.run(
        [sys.executable, "-m", "mutorch", "search", write(tmp_path, text)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 architectures" in done.stdout
