import pytest
import torch
from torch import nn

from mutorch.channels import ChannelAnalyzer, ChannelUnit, SequentialMutableChannelUnit
from mutorch.errors import ConfigError
from mutorch.ops import static_copy


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1))
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.body(x)
        x = self.grouped(x)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def test_units_have_the_modules_that_make_and_take_their_channels():
    found = ChannelAnalyzer((1, 3, 8, 8)).analyze(Residual())
    unit = found["body.0_(0, 16)_16"]
    assert unit["init_args"] == {"num_channels": 16}
    named = {side: [channel["name"] for channel in unit["channels"][side]] for side in unit["channels"]}
    assert sorted(named["output_related"]) == ["body.0", "body.1"]
    assert sorted(named["input_related"]) == ["body.1", "body.2"]
    for name in found:
        assert name.split("_")[0] in dict(Residual().named_modules())


@pytest.mark.parametrize("seed", range(4))
def test_every_unit_of_a_model_can_be_narrowed(seed):
    model = Residual().eval()
    units = SequentialMutableChannelUnit.init_from_channel_analyzer(model, ChannelAnalyzer((1, 3, 8, 8)))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    expected = model(x)
    for unit in units:
        unit.prepare_for_pruning(model)
        assert unit.is_mutable
    assert torch.equal(model(x), expected)
    for number, unit in enumerate(units):
        unit.current_choice = unit.sample_choice(seed * 10 + number)
    assert torch.equal(static_copy(model)(x), model(x))
    assert sum(p.numel() for p in static_copy(model).parameters()) < sum(p.numel() for p in model.parameters())


def test_a_model_without_units_has_none():
    assert ChannelAnalyzer((1, 3)).analyze(nn.Linear(3, 2)) == {}
    assert ChannelUnit.init_from_channel_analyzer(nn.Linear(3, 2), {"demo_input": (1, 3)}) == []


def test_analyzers_are_checked():
    with pytest.raises(ConfigError, match="no tracer_type 'Backward'; did you mean 'BackwardTracer'"):
        ChannelAnalyzer(tracer_type="Backward")
    with pytest.raises(NotImplementedError, match="demo_input"):
        ChannelAnalyzer("a").analyze(nn.Linear(3, 2))
    with pytest.raises(ConfigError, match="no analyzer 'Other'"):
        ChannelUnit.init_from_channel_analyzer(nn.Linear(3, 2), {"type": "Other"})
    with pytest.raises(ConfigError, match="has a method analyze"):
        ChannelUnit.init_from_channel_analyzer(nn.Linear(3, 2), 3)
