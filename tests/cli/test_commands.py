"""The commands as a user types them, on a toy config."""

import json
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

import mutorch
from mutorch.cli.app import app
from mutorch.errors import ConfigError, ExportError, InfeasibleBudgetError, LoadError, ResumeError, SpaceError

CONFIG = """
model: {type: ChainNet}
data: {type: ClutteredDigits}
output: FOLDER/run
supernet: {steps: 6}
search: {budget: {macs: "60%"}, num_trials: 4, calibration_samples: 256}
retrain: {steps: 3}
num_retrained: 2
num_random: 1
threads: 1
"""
DATA = """
import torch
from mutorch.registry import DATASETS, MODELS
from mutorch import OneShotMutableOP

@MODELS.register_module()
class MyNet(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.block = OneShotMutableOP({"linear": torch.nn.Linear(4, width), "small": torch.nn.Sequential(
            torch.nn.Linear(4, 2), torch.nn.Linear(2, width))})
        self.head = torch.nn.Linear(width, 3)

    def forward(self, x):
        return self.head(torch.relu(self.block(x)))

@DATASETS.register_module()
class MyData:
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


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    path = folder / "toy.yaml"
    path.write_text(CONFIG.replace("FOLDER", str(folder)))
    output = run("search", path)
    return path, folder / "run", output


def test_search_ends_with_the_table_the_check_the_report_and_three_lines_to_run_next(config):
    path, folder, output = config
    for expected in (
        "winner",
        "largest",
        "smallest",
        "best of 1 random",
        "loads without mutorch",
        f"mutorch export {path}",
    ):
        assert expected in output
    assert (folder / "report.html").exists()
    assert output.partition("next:")[2].count("mutorch ") + output.partition("next:")[2].count("python ") == 3


def test_the_report_is_one_file_with_pictures_every_row_and_the_winner(config):
    _, folder, _ = config
    page = (folder / "report.html").read_text()
    rows = json.loads((folder / "results.json").read_text())["rows"]
    assert "http" not in page
    assert all(f"{row['macs']:,}" in page for row in rows)
    for heading in ("Trained alone, equally long", "The best", "Pareto front", "Progress", "The winner", "Checklist"):
        assert f">{heading}</h2>" in page
    assert " ".join(rows[0]["architecture"].values()) in page
    assert {"alone.png", "pareto.png", "progress.png", "preferences.png", "parallel.png", "architecture.png"} <= {
        path.name for path in folder.iterdir()
    }
    assert json.loads((folder / "card.json").read_text())["trials"] == 4


def test_the_report_of_a_run_is_written_again(config):
    _, folder, _ = config
    written = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert f"report {folder / 'report.html'}".replace(" ", "") in run("report", folder).replace(" ", "")
    assert abs(len((folder / "report.html").read_bytes()) - len(written)) < 200  # the title is another one


def test_a_bare_log_is_reported_beside_it(config, tmp_path):
    log = tmp_path / "mine.jsonl"
    log.write_bytes(next(config[1].glob("search-*.jsonl")).read_bytes())
    run("report", log)
    page = (tmp_path / "mine-report" / "report.html").read_text()
    assert "The 4 best of 4 trials" in page
    assert "The line that ends a log is missing" not in page
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-2]))
    run("report", log)
    page = (tmp_path / "mine-report" / "report.html").read_text()
    assert "The 3 best of 3 trials" in page
    assert "The line that ends a log is missing" in page
    log.write_text("nothing")
    with pytest.raises(ResumeError, match="is no search log"):
        run("report", log)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pt2"])
def test_export_writes_the_winner_in_every_format(config, tmp_path, suffix):
    path, folder, _ = config
    file = tmp_path / f"winner{suffix}"
    assert "exported" in run("export", path, "--to", file)
    x = torch.zeros(2, 1, 10, 10)
    expected = torch.export.load(folder / "subnet.pt2").module()(x)
    if suffix == ".pt2":
        found = torch.export.load(file).module()(x)
    else:
        from mutorch.models import chain_net

        found = mutorch.load(file, chain_net).eval()(x)
    assert torch.allclose(found, expected, atol=1e-6)


def test_export_takes_any_architecture_with_the_supernets_weights(config, tmp_path):
    path, _, _ = config
    architecture = {f"block{i}": "skip" for i in range(4)}
    run("export", path, "--to", tmp_path / "small.safetensors", "--architecture", json.dumps(architecture))
    from mutorch.subnet import read_record

    assert read_record(tmp_path / "small.safetensors")["architecture"] == architecture


def test_export_names_what_is_wrong_with_an_architecture_or_a_file(config, tmp_path):
    path, _, _ = config
    with pytest.raises(SpaceError, match="the space has no decision 'blok0'; did you mean 'block0'"):
        run("export", path, "--to", tmp_path / "x.pt", "--architecture", '{"blok0": "skip"}')
    with pytest.raises(ConfigError, match="cannot export to 'x.tflite'"):
        run("export", path, "--to", tmp_path / "x.tflite")
    with pytest.raises(ConfigError, match="cannot read the architecture"):
        run("export", path, "--to", tmp_path / "x.pt", "--architecture", "{block0")


def test_train_and_space_show_what_there_is(config):
    path, folder, _ = config
    assert str(folder / "supernet.ckpt").replace("\n", "") in run("train", path).replace(" ", "")
    shown = run("space", path)
    assert "256 architectures" in shown
    assert "smallest 25% median 75% largest macs" in shown
    assert "feasible within macs <=" in shown


def test_looking_at_a_space_leaves_nothing_behind(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(CONFIG.replace("FOLDER", str(tmp_path)))
    run("space", path)
    assert list(tmp_path.iterdir()) == [path]


def test_report_of_an_unfinished_run_says_what_to_do(tmp_path):
    with pytest.raises(LoadError, match="holds no finished run"):
        run("report", tmp_path)


def test_own_model_and_data_beside_the_config_are_found(tmp_path):
    (tmp_path / "my_things.py").write_text(DATA)
    path = tmp_path / "mine.yaml"
    text = CONFIG.replace("FOLDER", str(tmp_path)).replace("type: ChainNet", "type: MyNet, width: 8")
    path.write_text(
        text.replace("ClutteredDigits", "MyData").replace("60%", "100%") + "custom_imports: {imports: [my_things]}\n"
    )
    # A process of its own: registering is for the life of a process.
    done = subprocess.run(
        [sys.executable, "-m", "mutorch", "search", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 architectures" in done.stdout


def test_a_mistake_is_a_line_and_not_a_traceback(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(
        "model: {type: ChanNet}\ndata: {type: ClutteredDigits}\noutput: OUT\n".replace("OUT", str(tmp_path))
    )
    done = subprocess.run([sys.executable, "-m", "mutorch", "train", path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'ChainNet'" in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stdout + done.stderr


def test_a_budget_that_cannot_be_met_fails_before_anything_is_trained(tmp_path):
    path = tmp_path / "tight.yaml"
    path.write_text(CONFIG.replace("FOLDER", str(tmp_path)).replace("60%", "1k"))
    with pytest.raises(InfeasibleBudgetError, match=r"reaches from 10.56k to 241k"):
        run("search", path)
    assert not (tmp_path / "run" / "supernet.ckpt").exists()


def test_without_the_cli_extra_the_command_says_how_to_install_it():
    script = "import sys; sys.modules['typer'] = None; from mutorch.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "mutorch[cli]"' in done.stderr


def test_doctor_says_what_is_on_and_how_to_turn_on_the_rest(monkeypatch):
    import importlib.metadata

    real = importlib.metadata.version

    def version(name):
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    output = run("doctor")
    assert f"mutorch {mutorch.__version__}, torch {torch.__version__}" in output
    assert "cli on: typer" in output
    assert 'onnx off: onnxruntime not installed; for mutorch.to_onnx: pip install "mutorch[onnx]"' in output


def test_a_program_that_computes_something_else_is_caught(tmp_path):
    from mutorch.cli.program_check import check_program

    model, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    file = mutorch.save_program(other, tmp_path / "other.pt2", torch.zeros(2, 2))
    assert check_program(file, other, torch.ones(2, 2)) <= 1e-6
    with pytest.raises(ExportError, match="computes something else"):
        check_program(file, model, torch.ones(2, 2))
