import math
import sys

import pytest

from mutorch.errors import MissingExtraError
from mutorch.reporting import TensorBoardLogger
from mutorch.search import History, Trial


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def scalars(found, name):
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_every_number_of_every_trial_is_read_back_at_its_step(tmp_path, make_history):
    history = make_history(12, ("accuracy", "-macs"))
    with TensorBoardLogger(tmp_path) as logger:
        for trial in history:
            logger(trial, 12)
        logger.finish(history)
    found = events(tmp_path)
    trials = history.trials
    assert scalars(found, "score") == [(t.index, pytest.approx(t.score)) for t in trials]
    assert scalars(found, "metrics/accuracy") == scalars(found, "score")
    assert scalars(found, "costs/macs") == [(t.index, t.costs.macs) for t in trials]
    assert scalars(found, "objective_1") == [(t.index, -t.costs.macs) for t in trials]
    best = [max(t.score for t in trials[: n + 1]) for n in range(12)]
    assert [value for _, value in scalars(found, "best")][:12] == pytest.approx(best)
    images = {"progress", "pareto", "hypervolume", "preferences", "parallel"}
    assert {*found.Tags()["images"]} == images
    assert all(found.Images(name)[0].width > 400 for name in images)


def test_settings_and_the_result_are_hyperparameters(tmp_path, make_history):
    with TensorBoardLogger(tmp_path) as logger:
        logger.finish(make_history(3), figures=False)
    plugin = events(tmp_path).summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"strategy" in plugin
    assert b"evolution" in plugin
    assert b"budget/macs" in plugin


def test_trials_that_a_log_had_already_are_written_at_the_end_and_none_twice(tmp_path, make_history):
    history = make_history(6)
    with TensorBoardLogger(tmp_path) as logger:
        for trial in history.trials[4:]:
            logger(trial, 6)
        logger.finish(history, figures=False)
    found = events(tmp_path)
    assert sorted(step for step, _ in scalars(found, "score")) == list(range(6))


def test_what_is_not_finite_is_left_out_and_failures_are_marked(tmp_path):
    trials = [Trial(0, {}, -math.inf, {"loss": math.nan}, error="E"), Trial(1, {}, 1.0, {"loss": 0.5})]
    with TensorBoardLogger(tmp_path) as logger:
        for trial in trials:
            logger(trial, 2)
        logger.finish(History(trials))
    found = events(tmp_path)
    assert scalars(found, "score") == [(1, 1.0)]
    assert scalars(found, "metrics/loss") == [(1, 0.5)]
    assert scalars(found, "failed") == [(0, 1.0), (1, 0.0)]


def test_without_the_extra_the_install_line_is_the_error(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r'pip install "mutorch\[tensorboard\]"'):
        TensorBoardLogger(tmp_path)
