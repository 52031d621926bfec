"""The whole recipe at toy length: what it leaves behind, how it goes on, what it refuses."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from mutorch.errors import ConfigError, ResumeError
from mutorch.mutables import BaseMutable
from mutorch.recipes import Run, Searching, Settings, Training, spos
from mutorch.registry import DATASETS
from mutorch.space import SearchSpace
from mutorch.subnet import load, read_record

TINY = Settings(
    model={"type": "ChainNet"},
    data={"type": "ClutteredDigits"},
    supernet=Training(steps=12),
    search=Searching(budget={"macs": "60%"}, num_trials=6, calibration_samples=256),
    retrain=Training(steps=4),
    num_retrained=2,
    threads=1,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, spos(TINY, folder)


def test_the_table_has_the_winner_first_and_its_baselines(finished):
    _, result = finished
    assert [row.role for row in result.rows] == ["winner", "runner-up", "best of 3 random", "largest", "smallest"]
    assert result.rows[0].val_accuracy >= result.rows[1].val_accuracy


def test_everything_but_the_largest_is_within_the_budget(finished):
    _, result = finished
    largest = result.table(result.table.largest()).macs
    assert all(row.macs <= 0.6 * largest for row in result.rows if row.role != "largest")
    assert all(trial.costs.macs <= 0.6 * largest for trial in result.history)


def test_the_saved_winner_is_the_plain_model_of_the_table(finished):
    folder, result = finished
    loaded = load(folder / "subnet.safetensors", Run(TINY, folder).build)
    x = DATASETS.build({"type": "ClutteredDigits"})["test"].tensors[0][:8]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(x), result.subnet.eval()(x))
    assert not [m for m in loaded.modules() if isinstance(m, BaseMutable) or type(m).__module__.startswith("mutorch")]
    assert read_record(folder / "subnet.safetensors")["metrics"]["test_accuracy"] == result.rows[0].test_accuracy


def test_the_same_call_finds_the_same_without_training_again(finished):
    folder, first = finished
    stages = {}
    again = spos(TINY, folder, progress=lambda stage, done, total, note: stages.setdefault(stage, []).append(done))
    assert [replace(row, latency_ms=0) for row in again.rows] == [replace(row, latency_ms=0) for row in first.rows]
    assert stages["training the supernet"] == [12]  # only the last word, no step


def test_a_run_stopped_in_any_stage_ends_like_one_that_was_not(finished, tmp_path):
    class StopError(Exception):
        pass

    def stop_at(wanted):
        def show(stage, done, total, note):
            if (stage, done) == wanted:
                raise StopError

        return show

    for place in [("searching", 0), ("searching", 3), ("training subnets alone", 2)]:
        with pytest.raises(StopError):
            spos(TINY, tmp_path, progress=stop_at(place))
    resumed = spos(TINY, tmp_path)
    assert [replace(row, latency_ms=0) for row in resumed.rows] == [replace(r, latency_ms=0) for r in finished[1].rows]


def test_a_folder_of_other_settings_is_refused_and_named(finished):
    folder, _ = finished
    with pytest.raises(ResumeError, match=r"other settings \(seed: 0 there, 3 here\)"):
        spos(replace(TINY, seed=3), folder)


def test_another_budget_or_a_longer_search_uses_the_trained_weights_again(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    stages = []
    searching = replace(TINY.search, budget={"macs": "40%"}, num_trials=8)
    again = spos(replace(TINY, search=searching), folder, progress=lambda stage, done, *_: stages.append((stage, done)))
    assert [done for stage, done in stages if stage == "training the supernet"] == [12]
    assert len(again.history) == 8
    assert all(trial.costs.macs <= 0.4 * again.table(again.table.largest()).macs for trial in again.history)
    heard = []
    longer = spos(
        replace(TINY, search=replace(TINY.search, num_trials=9)),
        folder,
        on_trial=[lambda trial, _: heard.append(trial)],
    )
    assert heard == longer.history.trials[6:]  # the new ones
    assert [t.architecture for t in longer.history][:6] == [t.architecture for t in finished[1].history]


@pytest.mark.filterwarnings("ignore:.*latencies vary")  # other tests run meanwhile
def test_a_config_says_how_latency_is_measured_and_who_evaluates(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    config = {
        "latency": {"runtime": "eager", "repeats": 2, "num_samples": 40},
        "budget": {"macs": "60%"},
        "objective": ["log_likelihood", "-latency_ms"],
    }

    def run(**options):
        search = {"num_trials": 6, "calibration_samples": 256, **config, **options}
        settings = Settings.from_config({"model": TINY.model, "data": TINY.data, "search": search})
        return spos(replace(TINY, search=settings.search), folder)

    first = run()
    assert all(trial.values[1] == -trial.costs["latency_ms"] for trial in first.history)
    assert len(first.history.measured) == 5
    assert json.loads((folder / "results.json").read_text())["measured"].keys() == {
        str(i) for i in first.history.measured
    }
    again = run(num_trials=8, workers=2)  # goes by the latencies that were measured first
    assert again.history.trials[:6] == first.history.trials
    with pytest.raises(ConfigError, match="'latency' has no key 'sample'; did you mean 'num_samples'"):
        run(latency={"sample": 3})


def test_results_are_plain_json(finished):
    folder, result = finished
    content = json.loads((folder / "results.json").read_text())
    assert content["rows"][0]["architecture"] == result.rows[0].architecture
    assert SearchSpace.from_json(json.dumps(content["space"])) == result.table.space


def test_settings_name_the_nearest_key_of_a_misspelt_one():
    config = {"model": {"type": "ChainNet"}, "data": {"type": "ClutteredDigits"}}
    with pytest.raises(ConfigError, match=r"'supernet' has no key 'step'; did you mean 'steps'"):
        Settings.from_config({**config, "supernet": {"step": 3}})
    with pytest.raises(ConfigError, match=r"the config has no key 'modle'"):
        Settings.from_config({**config, "modle": {}})
    with pytest.raises(ConfigError, match=r"a config needs 'data'"):
        Settings.from_config({"model": {"type": "ChainNet"}})
