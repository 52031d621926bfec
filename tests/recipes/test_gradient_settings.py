import pytest

from mutorch.errors import ConfigError
from mutorch.recipes import GradientSettings

CONFIG = {"model": {"type": "ChainNet"}, "data": {"type": "ClutteredDigits"}}


def test_a_config_may_leave_out_all_but_model_and_data():
    settings = GradientSettings.from_config({**CONFIG, "recipe": "differentiable", "output": "x"})
    assert settings.method == "samples"
    assert settings.search.path_steps == 3000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methd": "darts"}, "the config has no key 'methd'; did you mean 'method'"),
        ({"model": None}, "a config needs 'model'"),
        ({"method": "dart"}, "no method 'dart'; did you mean 'darts'"),
        ({"search": {"path_step": 3}}, "'search' has no key 'path_step'; did you mean 'path_steps'"),
        ({"search": {"path_steps": 0}}, "path_steps must be a whole number of at least 1, got 0"),
        ({"search": {"max_skips": -1}}, "max_skips must be a whole number of at least 0, got -1"),
        ({"search": {"skip_dropout": 1.0}}, "skip_dropout must be a number at least 0 and below 1, got 1.0"),
        ({"search": {"cost_weight": -1}}, "cost_weight must be a number at least 0, got -1"),
        ({"search": {"recompute": 1}}, "recompute must be true or false, got 1"),
        ({"num_random": 0}, "num_random must be at least 1"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        GradientSettings.from_config({**CONFIG, **change})
