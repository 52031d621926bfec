import torch
from torch import nn

from mutorch import compare, export
from mutorch.mutables import OneShotMutableOP
from mutorch.subnet import Comparison

X = torch.linspace(-1, 1, 6).reshape(3, 2)


def test_equal_models_differ_by_nothing():
    net = nn.Sequential(OneShotMutableOP({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}), nn.Dropout())
    subnet = export(net, {"0": "a"})
    again = export(net, {"0": "a"})
    result = compare(subnet, again, X, repeats=2)
    assert result.max_difference == 0.0
    assert result.first["params"] == result.second["params"] == 6
    assert result.first["latency_ms"] > 0
    assert subnet.training


def test_the_largest_difference_is_found_among_all_outputs():
    class Shifted(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.shift = shift

        def forward(self, x):
            return x, {"shifted": [x.relu() + self.shift]}

    assert compare(Shifted(0), Shifted(0.5), X, repeats=2).max_difference == 0.5


def test_outputs_of_different_shapes_have_no_difference():
    result = compare(nn.Linear(2, 4), nn.Linear(2, 3), X, repeats=2)
    assert result.max_difference is None
    assert (result.first["macs"], result.second["macs"]) == (3 * 8, 3 * 6)


def test_a_comparison_prints_as_a_table_with_advice():
    figures = {"params": 1000.0, "macs": 2000.0, "size_mb": 0.5, "act_mem_mb": 0.0, "latency_ms": 1.0}
    text = str(Comparison(figures, {**figures, "macs": 1000.0}, 1e-3))
    assert text.splitlines()[2].split() == ["macs", "2,000", "1,000", "0.50"]
    assert text.splitlines()[4].split() == ["act_mem_mb", "0.000", "0.000", "-"]
    assert "fewer macs but no lower latency" in text
    assert text.endswith("outputs differ by at most 0.001")
    assert "fewer macs" not in str(Comparison(figures, {**figures, "macs": 1000.0, "latency_ms": 0.5}, None))
