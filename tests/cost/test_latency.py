import math

import pytest
import torch
from torch import nn

from mutorch.cost import Measured, measure_latency
from mutorch.cost.latency import in_turns, steadied, warn_if_noisy
from mutorch.errors import MeasureError


class Counting(nn.Module):
    def __init__(self, calls, name):
        super().__init__()
        self.calls, self.name = calls, name

    def forward(self, x):
        self.calls.append((self.name, self.training, torch.is_inference_mode_enabled()))
        return x


def test_models_take_turns_in_evaluation_mode_and_modes_come_back():
    calls = []
    models = [Counting(calls, "a"), Counting(calls, "b")]
    times = measure_latency(models, torch.zeros(1), repeats=2, warmup=1)
    assert calls == [("a", False, True), ("b", False, True)] * 3
    assert [model.training for model in models] == [True, True]
    assert all(milliseconds > 0 for milliseconds in times)


def test_no_repeats_are_refused():
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        measure_latency([nn.Identity()], torch.zeros(1), repeats=0)


def test_a_measurement_is_its_median_and_quartiles():
    measured = Measured.of([4.0, 1.0, 2.0, 3.0, 100.0], runtime="eager", device="cpu", dtype="fp32", batch=1)
    assert (measured.low_ms, measured.median_ms, measured.high_ms, measured.repeats) == (2.0, 3.0, 4.0, 5)
    assert measured.spread == pytest.approx(2 / 3)
    assert str(measured) == "3 ms (2 to 4, 5 times, eager cpu fp32)"
    assert measured.scaled(2.0) == Measured.of(
        [8.0, 2.0, 4.0, 6.0, 200.0], runtime="eager", device="cpu", dtype="fp32", batch=1
    )


@pytest.mark.parametrize("times", [[0.0], [1.0, -1.0], [math.nan], [math.inf]])
def test_what_no_forward_can_take_is_no_measurement(times):
    with pytest.raises(MeasureError, match="phone measured .* ms; a latency is a positive number"):
        Measured.of(times, runtime="phone")


def test_nothing_measured_is_no_measurement_either():
    with pytest.raises(MeasureError, match="phone measured nothing"):
        Measured.of([], runtime="phone")


def test_times_that_vary_are_warned_of_once():
    steady, noisy = Measured.of([1.0, 1.0], runtime="eager"), Measured.of([1.0, 3.0], runtime="eager")
    with pytest.warns(UserWarning, match="2 of 3 measured latencies vary: .* up to 50% of the median") as caught:
        warn_if_noisy([steady, noisy, noisy])
    assert len(caught) == 1


def test_steady_times_are_not_warned_of():
    warn_if_noisy([Measured.of([1.0, 1.01, 1.02], runtime="eager")])


def test_a_device_is_waited_for_within_the_time_and_warming_up_does_not_count():
    calls = []
    times = in_turns([lambda: calls.append("forward")], repeats=2, warmup=1, wait=lambda: calls.append("wait"))
    assert calls == ["forward", "wait"] * 3
    assert len(times[0]) == 2


def test_a_turn_that_is_slow_for_all_models_is_slow_for_none_of_them():
    times = [[[float(model * turn)] for turn in (1, 1, 5, 1, 2)] for model in (1, 2, 3, 4)]
    assert steadied(times) == [[float(model)] * 5 for model in (1, 2, 3, 4)]


def test_one_model_that_is_slow_by_itself_stays_slow():
    times = [[[1.0], [1.0], [9.0]], [[2.0], [2.0], [2.0]], [[3.0, 3.1], [3.0], [3.0]]]
    assert steadied(times) == [[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], pytest.approx([3.0, 3.1, 3.0, 3.0], rel=0.02)]


def test_of_two_models_nothing_is_known_of_turns():
    assert steadied([[[1.0], [5.0]], [[2.0], [10.0]]]) == [[1.0, 5.0], [2.0, 10.0]]
