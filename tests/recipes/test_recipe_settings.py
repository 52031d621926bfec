"""Settings are checked when they are read, before anything is trained."""

import pytest

from mutorch.errors import ConfigError
from mutorch.recipes import Settings

SMALLEST = {"model": {"type": "ChainNet"}, "data": {"type": "ClutteredDigits"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": "one"}, "threads must be a whole number of at least 1, got 'one'"),
        ({"num_random": -1}, "num_random must be a whole number of at least 0, got -1"),
        ({"num_retrained": True}, "num_retrained must be a whole number of at least 1, got True"),
        ({"supernet": {"steps": -3}}, "supernet: steps must be a whole number of at least 1, got -3"),
        ({"retrain": {"steps": 2.5}}, "retrain: steps must be a whole number of at least 1, got 2.5"),
        ({"retrain": {"steps": float("nan")}}, "retrain: steps must be a whole number"),
        ({"retrain": {"lr": "fast"}}, "retrain: lr must be a number of at least 0, got 'fast'"),
        ({"search": {"num_trials": None}}, "search: num_trials must be a whole number"),
        ({"search": {"strategy": "evolve"}}, "no strategy 'evolve'; did you mean 'evolution'"),
        ({"search": {"strategy": ["random"]}}, r"no strategy \['random'\]"),
        ({"supernet": None}, "'supernet' must be a dict, got NoneType"),
        ({"data": "ClutteredDigits"}, "'data' must be a dict with `type`, got 'ClutteredDigits'"),
        ({"modle": {}}, "the config has no key 'modle'; did you mean 'model'"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_where_it_stands(change, message):
    with pytest.raises(ConfigError, match=message):
        Settings.from_config({**SMALLEST, **change})


def test_whole_numbers_may_be_written_with_an_exponent_and_none_leaves_the_choice():
    settings = Settings.from_config({**SMALLEST, "supernet": {"steps": 1e2}, "threads": None, "num_random": None})
    assert settings.supernet.steps == 100
    assert isinstance(settings.supernet.steps, int)
    assert settings.threads is settings.num_random is None
