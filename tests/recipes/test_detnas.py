"""Backbone search for detection at toy length."""

import json
import warnings
from dataclasses import replace

import pytest
import torch

from mutorch.errors import ConfigError, ResumeError
from mutorch.recipes import DetNASRun, DetNASSettings, Pretraining, Searching, Training, detnas
from mutorch.subnet import export, load, read_record

BLOCK = {
    "type": "OneShotMutableOP",
    "candidates": {"k3": {"type": "ShuffleBlock", "kernel_size": 3}, "k7": {"type": "ShuffleBlock", "kernel_size": 7}},
}
BACKBONE = {
    "type": "SearchableShuffleNetV2",
    "arch_setting": [[8, 3, BLOCK]],
    "in_channels": 1,
    "with_last_layer": False,
    "out_indices": [0],
}
CONFIG = {
    "model": {"type": "DenseDetector", "backbone": BACKBONE, "num_classes": 10, "in_channels": 8, "neck_channels": 8},
    "data": {"type": "DetectionDigits", "counts": {"train": 48, "val": 16, "test": 16}},
    "supernet": {"steps": 4, "batch_size": 8},
    "search": {"budget": {"macs": "90%"}, "num_trials": 3, "calibration_samples": 16},
    "retrain": {"steps": 2, "batch_size": 8},
    "num_retrained": 1,
    "num_random": 1,
}
PRETRAIN = {
    "data": {"type": "ClutteredDigits"},
    "head": {"type": "LinearClsHead", "num_classes": 10, "in_channels": 8},
    "supernet": {"steps": 3, "batch_size": 8},
    "alone": {"steps": 2, "batch_size": 8},
}
TINY = DetNASSettings.from_config(CONFIG)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detnas")
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".isinstance.treespec, LeafSpec.. is deprecated", FutureWarning
        )  # torch's exporter
        return detnas(TINY, folder), folder


def test_results_are_plain_json_in_the_form_of_the_other_recipes_and_say_what_they_measure(finished):
    result, folder = finished
    content = json.loads((folder / "results.json").read_text())
    assert content["metric"] == result.metric == "mAP"
    assert [row["role"] for row in content["rows"]] == ["winner", "best of 1 random", "largest", "smallest"]
    assert all(0 <= row["test_accuracy"] <= 1 for row in content["rows"])


def test_everything_searched_is_within_the_budget_and_scored_by_map(finished):
    result, _ = finished
    largest = result.table(result.table.largest()).macs
    assert all(trial.costs.macs <= 0.9 * largest for trial in result.history)
    assert all(trial.score == trial.metrics["mAP"] <= trial.metrics["mAP50"] for trial in result.history)


def test_the_saved_winner_is_a_plain_detector_with_the_weights_of_the_table(finished):
    result, folder = finished
    run = DetNASRun(TINY, folder)
    loaded = load(folder / "subnet.safetensors", run.build)
    score = run.evaluate(loaded, run.data.loader("test", 16))["mAP"]
    assert score == result.rows[0].test_accuracy
    assert read_record(folder / "subnet.safetensors")["metrics"]["test_mAP"] == score


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")  # torch's exporter
def test_the_program_of_the_winner_detects_in_batches_of_any_size(finished):
    result, _ = finished
    program, images = torch.export.load(result.program_file).module(), torch.cat([result.example_inputs] * 2)
    with torch.no_grad():
        for found, expected in zip(program(images), result.subnet.eval()(images), strict=True):
            assert torch.allclose(found, expected, atol=1e-5)


def test_the_same_call_trains_nothing_again(finished):
    first, folder = finished
    run = DetNASRun(TINY, folder)
    run.train_supernet()
    assert [trial.score for trial in run.search()] == [trial.score for trial in first.history]
    assert run.scores(first.rows[0].architecture) == (first.rows[0].val_accuracy, first.rows[0].test_accuracy)


def test_pretraining_gives_supernet_and_subnets_a_backbone_that_learned_to_classify(tmp_path):
    settings = DetNASSettings.from_config({**CONFIG, "pretrain": PRETRAIN})
    stages = []
    run = DetNASRun(settings, tmp_path, lambda stage, done, *_: stages.append((stage, done)))
    run.train_supernet()
    assert list(dict.fromkeys(stages)) == [("pre-training the backbone", 3), ("training the supernet", 4)]
    assert (tmp_path / "supernet.backbone.ckpt").exists()
    architecture = run.table.largest()
    alone = run.trained_subnet(architecture)
    scratch = DetNASRun(TINY, tmp_path / "scratch").trained_subnet(architecture)
    assert not torch.equal(alone.backbone.conv1.conv.weight, scratch.backbone.conv1.conv.weight)
    with run.mutator.at(architecture), torch.no_grad():
        exported = export(run.net, architecture).eval()
        for one, other in zip(exported(run.data.example_inputs), run.net.eval()(run.data.example_inputs), strict=True):
            assert torch.equal(one, other)


def test_pretraining_trains_the_backbone_that_detection_goes_on_from(tmp_path):
    still = Training(steps=1, batch_size=8, lr=0.0, momentum=0.0, weight_decay=0.0)
    pretrain = Pretraining(PRETRAIN["data"], PRETRAIN["head"], Training(steps=3, batch_size=8))
    run = DetNASRun(replace(TINY, supernet=still, pretrain=pretrain), tmp_path)
    fresh = run.build().state_dict()
    run.train_supernet()
    moved = {name for name, value in run.net.state_dict().items() if not torch.equal(value, fresh[name])}
    weights = {name for name in moved if name.endswith("conv.weight")}
    assert weights
    assert all(name.startswith("backbone.") for name in weights)


def test_a_folder_without_pretraining_is_not_continued_with_it(finished):
    _, folder = finished
    settings = DetNASSettings.from_config({**CONFIG, "pretrain": PRETRAIN})
    with pytest.raises(ResumeError, match="pretrain"):
        detnas(settings, folder)


@pytest.mark.parametrize(
    ("pretrain", "message"),
    [
        ({**PRETRAIN, "haed": {}}, r"'pretrain' has no key 'haed'; did you mean 'head'"),
        ({"data": {"type": "ClutteredDigits"}}, r"'pretrain' needs 'head', a dict with `type`, got None"),
        ({**PRETRAIN, "alone": {"step": 1}}, r"'pretrain.alone' has no key 'step'; did you mean 'steps'"),
        ("digits", "'pretrain' must be a dict, got str"),
    ],
)
def test_mistakes_in_pretrain_are_named(pretrain, message):
    with pytest.raises(ConfigError, match=message):
        DetNASSettings.from_config({**CONFIG, "pretrain": pretrain})


def test_a_model_without_a_backbone_cannot_be_pretrained(tmp_path):
    settings = DetNASSettings.from_config({**CONFIG, "model": {"type": "ChainNet"}, "pretrain": PRETRAIN})
    with pytest.raises(ConfigError, match="`backbone`, and Sequential has no such module"):
        DetNASRun(settings, tmp_path)


def test_settings_without_pretrain_are_those_of_the_one_shot_recipe():
    assert TINY.pretrain is None
    assert TINY.search == Searching(budget={"macs": "90%"}, num_trials=3, calibration_samples=16)
