import pytest
import torch
from torch import nn

from mutorch.cost import measure_latency


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
